"""What Gradio leaves open and this page does not want.

Fetching URLs. Target: `processing_utils.async_ssrf_protected_get` and `routes.secure_url_stream_response`
of gradio 6. Why: any API call may carry a URL where a file is expected, and `/gradio_api/file=https://...`
streams any public page, so that the server fetches for strangers. This page takes uploads only. How:
both functions are replaced by a refusal; everything in Gradio that fetches goes through one of them.
Remove when: Gradio has a switch for it.

Form fields. Target: `route_utils.GradioMultiPartParser`. Why: a form field without a file name is kept in memory
whole, 200 MB and more, and a thousand files in one form take a thousand file descriptors. How: `OneFile` takes its
place, which takes a single file. Remove when: Gradio bounds both.

What is kept of an open page. Target: `state_holder.SessionState`. Why: for links into a page's state, which there are
none of here, the configuration of every component is made and kept for each page: half of its memory and 30 ms. How:
`Session` takes its place, without them. Remove when: Gradio makes them when they are asked for.
"""

import copy
import inspect
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import gradio as gr
import httpx
from fastapi import HTTPException
from gradio import route_utils
from gradio.exceptions import ComponentProcessingError, InvalidPathError
from gradio.state_holder import SessionState
from gradio.utils import get_upload_folder
from pydantic import ValidationError
from python_multipart.exceptions import MultipartParseError
from starlette.formparsers import MultiPartException

from wan_ui.errors import UserError
from wan_ui.ui import seams
from wan_ui.ui.aliases import path_to_real
from wan_ui.ui.examples import load_examples

log = logging.getLogger(__name__)

EXAMPLES = "examples/"  # stands for the folder of the examples in addresses


async def _refuse_fetch(url: str):
    """The addresses that are taken are those of examples and uploads, which are read from the disk and not fetched."""
    folder = Path(os.path.realpath(get_upload_folder()))
    sent = path_to_real(unquote(url.partition("/gradio_api/file=")[2]), folder)
    if "\0" not in sent and Path(os.path.realpath(sent)).is_relative_to(folder) and Path(sent).is_file():
        return httpx.Response(200, content=Path(sent).read_bytes())
    name = url.partition(f"/gradio_api/file={EXAMPLES}")[2]
    for example in load_examples():
        for file in example.inputs.values():
            if isinstance(file, Path) and file.name == name:
                return httpx.Response(200, content=file.read_bytes())
    raise gr.Error("Only uploaded files are accepted, not addresses.", print_exception=False)


async def _refuse_stream(url: str, request):
    raise HTTPException(403, "Only files are served here, not addresses.")


class OneFile(route_utils.GradioMultiPartParser):
    """The parser of uploads, for one file and nothing beside it. What was written of a broken one is deleted."""

    def __init__(self, headers, stream, **options):
        super().__init__(headers, stream, **{**options, "max_files": 1})

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        field = self._current_part.field_name
        if field != "files" or self._current_part.file is None:
            raise MultiPartException(f"{field[:80]!r}: send one file with a file name, in the field 'files'.")

    async def parse(self):
        try:
            form = await super().parse()
            if not form.getlist("files"):
                raise MultiPartException("files: the form has no whole file.")
        except BaseException as error:
            for file in self._files_to_close_on_error:
                file.close()
                Path(file.name).unlink(missing_ok=True)
            if isinstance(error, (MultipartParseError, AttributeError, FileNotFoundError)):
                raise MultiPartException("files: the form cannot be read.") from None
            raise
        return form


class CheckedBlocks(gr.Blocks):
    """Blocks that say which value of a call cannot be used, before a handler sees them.

    Target: `Blocks.preprocess_data`, `call_function` and `postprocess_data` of gradio 6. Why: it looks for files in
    every value, and answers a wrong one with nothing and a traceback in the log; what an endpoint answers with is
    copied into the folder of uploads, and nothing is said either when that fails. Remove when: it names the component.
    """

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        if block_fn.fn is None:
            raise gr.Error("This event is answered in the browser.", print_exception=False)
        # A caller who knows an older version sends fewer values: the last ones have defaults.
        parameters = list(inspect.signature(block_fn.fn).parameters.values())[len(inputs) : len(block_fn.inputs)]
        if all(parameter.default is not parameter.empty for parameter in parameters):
            inputs = [*inputs, *(parameter.default for parameter in parameters)]
        if len(inputs) < len(block_fn.inputs):
            name, needed = block_fn.api_name or block_fn.name, len(block_fn.inputs)
            words = f"data: {name} takes {needed} values, not {len(inputs)}"
            raise gr.Error(words, print_exception=False)
        for component, value in zip(block_fn.inputs, inputs, strict=False):
            name = getattr(component, "label", None) or component.elem_id or component.get_block_name()
            is_file = isinstance(value, dict) and isinstance(value.get("path"), str)
            if getattr(component, "data_model", None) and not component.stateful and value is not None and not is_file:
                raise gr.Error(f"{name}: send an uploaded file", print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except InvalidPathError:
            raise gr.Error("Only uploaded files are accepted, not paths.", print_exception=False) from None
        except ValidationError:
            raise gr.Error(
                "data: a file's record cannot be read; send an uploaded file", print_exception=False
            ) from None

    async def call_function(self, *args, **options):
        try:
            return await super().call_function(*args, **options)
        except gr.Error as error:  # also of a path in what came with an event
            error.print_exception = False
            raise

    async def postprocess_data(self, block_fn, predictions, state):
        """What is skipped is left alone: Gradio makes such a component anew, a third of what an answer takes."""
        outputs = block_fn.outputs
        if not isinstance(predictions, list) or len(predictions) != len(outputs) or len(outputs) < 2:
            return await self._postprocessed(block_fn, predictions, state)
        named = [place for place, value in enumerate(predictions) if value != gr.skip()]
        answer: list[Any] = [None if block.stateful else gr.skip() for block in outputs]
        if named:
            block_fn = copy.copy(block_fn)
            block_fn.outputs = [outputs[place] for place in named]
            values = [predictions[place] for place in named]
            drawn = await self._postprocessed(block_fn, values if len(values) > 1 else values[0], state)
            for place, value in zip(named, drawn, strict=True):
                answer[place] = value
        return answer

    async def _postprocessed(self, block_fn, predictions, state):
        try:
            return await super().postprocess_data(block_fn, predictions, state)
        except (OSError, ComponentProcessingError) as error:
            why = error.__cause__ if isinstance(error, ComponentProcessingError) else error
            if not isinstance(why, OSError):
                raise
            words = f"disk: the answer could not be stored ({why.strerror or why}); ask again when there is room"
            raise gr.Error(words, print_exception=False) from None


class Session(SessionState):
    """What the server keeps of one open page: its own state and the components that were changed."""

    def __init__(self, blocks):
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks=()))

    def __setitem__(self, key, value) -> None:
        super().__setitem__(key, value)
        self.config_values.clear()

    def _update_config(self, key) -> None:
        pass

    def _update_value_in_config(self, key, value) -> None:
        pass


def harden() -> None:
    """Put the refusals in place, once, before the page is served."""
    seams.replace("gradio.processing_utils:async_ssrf_protected_get", _refuse_fetch)
    seams.replace("gradio.routes:secure_url_stream_response", _refuse_stream)
    seams.replace("gradio.route_utils:GradioMultiPartParser", OneFile)
    seams.replace("gradio.state_holder:SessionState", Session)
    seams.replace("gradio.route_utils:SessionState", Session)


def uploaded(value: dict | None, field: str = "image") -> str:
    """The path of an uploaded file as it arrived from the browser or the API; "" when there is none.

    Gradio has looked at the path already where it recognised a file; a value that it did not recognise
    (a bare text, a record without its marker) must not become a path either.
    """
    if not value:
        return ""
    path = value.get("path") if isinstance(value, dict) else None
    if (
        not isinstance(path, str)
        or "\0" in path
        or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(get_upload_folder()))
    ):
        raise UserError(f"{field}: send an uploaded file", field=field)
    return path
