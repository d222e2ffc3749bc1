"""What an endpoint answers with is stored in the folder of uploads first, where there may be no room."""

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from wan_ui.ui.security import CheckedBlocks


@pytest.mark.hardening(25)
@pytest.mark.parametrize("kind", ["a clip, which is copied", "a picture, which is written"])
def test_an_answer_that_cannot_be_stored_says_so(kind, tmp_path, monkeypatch):
    """In words, without a traceback: the clip is made and can be asked for again."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"a clip")
    output, value = (gr.Video, str(clip)) if "clip" in kind else (gr.Image, Image.new("RGB", (8, 8)))
    with CheckedBlocks() as page:
        gr.Button().click(lambda: value, None, output())
    function = next(iter(page.fns.values()))

    def full(*given, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(Path(clip)))

    monkeypatch.setattr("gradio.processing_utils.save_file_to_cache", full)
    monkeypatch.setattr("gradio.processing_utils.save_pil_to_cache", full)
    with ThreadPoolExecutor(1) as thread, pytest.raises(gr.Error) as said:  # a browser's test may have left a loop here
        thread.submit(asyncio.run, page.postprocess_data(function, value, None)).result()
    words = "disk: the answer could not be stored (No space left on device); ask again when there is room"
    assert said.value.message == words and not said.value.print_exception
