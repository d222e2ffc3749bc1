"""Requests by the names under which they are stored, which are flat: for tests that need one and no intake."""

from wan_ui.request import Request

VALUES = {
    "image": "x.png", "prompt": "a wave", "model": "wan-tiny", "scheme": "bf16", "engine": "auto",
    "width": 256, "height": 256, "frames": 17, "steps": 4, "seed": 1,
}  # fmt: skip


def job_request(**changes) -> Request:
    return Request.from_dict(VALUES | changes)


def changed(request: Request, **changes) -> Request:
    return Request.from_dict(request.to_dict() | changes)
