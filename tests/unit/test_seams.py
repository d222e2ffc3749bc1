"""The insides of Gradio that the page replaces are where it looks for them, and a change of theirs fails the start."""

import gradio.processing_utils
import gradio.route_utils
import gradio.routes
import pytest

from wan_ui.errors import UserError
from wan_ui.ui import seams
from wan_ui.ui.seams import SEAMS, Seam


def test_all_of_them_are_there():
    seams.check()


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.place)
def test_a_renamed_one_fails_the_start_by_name(monkeypatch, seam):
    owner = seams.pkgutil.resolve_name(seam.place[: -len(seam.name) - 1])
    monkeypatch.delattr(owner, seam.name)
    with pytest.raises(UserError, match=rf"version 6\.\S+ is not the one .*{seam.place} is not there"):
        seams.check()


def test_what_is_called_with_something_else_or_looked_up_elsewhere_is_said(monkeypatch):
    monkeypatch.setattr(gradio.processing_utils, "async_ssrf_protected_get", lambda address: None)
    with pytest.raises(UserError, match=r"async_ssrf_protected_get takes \(address\), not \(url, \.\.\.\)"):
        seams.check()
    monkeypatch.undo()
    monkeypatch.setattr(gradio.route_utils, "upload_fn", lambda request: None)
    with pytest.raises(UserError, match=r"GradioMultiPartParser is not used by gradio\.route_utils:upload_fn any more"):
        seams.check()
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"gradio\.events:EventData has no _values"):
        seams.check((Seam("gradio.events:EventData", has=("_data", "_values")),))


def test_only_what_is_listed_is_replaced(monkeypatch):
    before = gradio.routes.secure_url_stream_response
    monkeypatch.setattr(gradio.routes, "secure_url_stream_response", before)  # and is as it was afterwards
    with pytest.raises(KeyError):
        seams.replace("gradio.routes:upload_fn", None)
    seams.replace("gradio.routes:secure_url_stream_response", len)
    assert gradio.routes.secure_url_stream_response is len
