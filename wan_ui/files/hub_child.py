"""The process that speaks with the Hugging Face Hub: `python -m wan_ui.files.hub_child`, asked by wan_ui.files.hub.

A line of JSON asks for one thing, lines of JSON answer it; when the asker is gone the process ends at once. It uses
huggingface_hub's own session, so that proxies, the token (HF_TOKEN, or that of `hf auth login`), HF_HUB_OFFLINE and
certificates are what they are in every other program; and Xet where hf_xet is installed.
"""

import errno
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What a disk says that does not take what comes.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.EFBIG)


def main() -> None:
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            asked.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        question = json.loads(asked.get())
        try:
            tell({"ended": DOES[question.pop("do")](**question)})
        except Exception as error:
            tell({"failed": said(error)})


def tell(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def describe(url: str, endpoint: str, timeout: float) -> dict[str, Any]:
    """Size, checksum and commit of a file, None where the hub does not say."""
    from huggingface_hub import get_hf_file_metadata

    found = get_hf_file_metadata(url, endpoint=endpoint, timeout=timeout, library_name="wan-ui")
    xet = found.xet_file_data is not None
    return {"size": found.size, "etag": found.etag, "commit": found.commit_hash, "xet": xet}


def receive(url: str, endpoint: str, part: str, size: int, xet: bool, timeout: float, chunk: int) -> None:
    """Append to `part`, which holds the file's beginning, until it has `size` bytes. xet: it is in Xet's store."""
    if xet and through_xet(url, endpoint, part, size, timeout):
        return
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    path = Path(part)
    have = path.stat().st_size if path.is_file() else 0
    headers = {**build_hf_headers(library_name="wan-ui"), "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={have}-"} if have else {}
    # Not its http_get: that gives out ten megabytes at a time, and waits by itself where nobody can end it.
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as answer:
        hf_raise_for_status(answer)
        have = have if answer.status_code == 206 else 0
        with open(path, "ab" if have else "wb") as file:
            for piece in answer.iter_bytes():
                for at in range(0, len(piece), chunk):
                    file.write(piece[at : at + chunk])
                    file.flush()
                    have += len(piece[at : at + chunk])
                    tell({"have": have})
    if have < size:
        raise OSError(f"the connection ended after {have} of {size} bytes")


def through_xet(url: str, endpoint: str, part: str, size: int, timeout: float) -> bool:
    """Fetch the whole file from Xet's store, where it is there and hf_xet is installed."""
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.utils import build_hf_headers, is_xet_available

    if not is_xet_available():
        return False
    from huggingface_hub.file_download import xet_get

    data = get_hf_file_metadata(url, endpoint=endpoint, timeout=timeout, library_name="wan-ui").xet_file_data
    if data is None:
        return False
    headers = build_hf_headers(library_name="wan-ui")
    xet_get(incomplete_path=Path(part), xet_file_data=data, headers=headers, expected_size=size)
    return True


def said(error: Exception) -> dict[str, Any]:
    """status: of the hub's answer, 0 where there was none; gated, offline: why; words: the error's first line."""
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    answer = getattr(error, "response", None)
    lines = str(error).strip().splitlines()
    return {
        "status": getattr(answer, "status_code", 0) or 0,
        "gated": isinstance(error, GatedRepoError),
        "offline": isinstance(error, OfflineModeIsEnabled),
        "disk": isinstance(error, OSError) and error.errno in DISK,
        "errno": getattr(error, "errno", None) or 0,
        "words": lines[0] if lines else type(error).__name__,
    }


DOES: dict[str, Callable[..., Any]] = {"describe": describe, "receive": receive}

if __name__ == "__main__":
    main()
