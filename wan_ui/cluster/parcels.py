"""A job's files as bytes: its inputs go with it, its clip comes back. Frames never travel."""

import os
from dataclasses import replace
from pathlib import Path

from wan_ui.queue.messages import AfterWork, Generate, LipSync
from wan_ui.request import Request, Result

Files = dict[str, bytes]  # name -> content


def inputs_of(request: Request) -> Files:
    """Raises OSError when one is gone."""
    return {Path(path).name: Path(path).read_bytes() for path in request.inputs.values()}


def moved(message: Generate | LipSync | AfterWork, folder: Path) -> Generate | LipSync | AfterWork:
    """The same message about the same files in another folder."""
    return replace(message, request=message.request.in_folder(folder), folder=folder)


def outputs_of(result: Result, folder: Path) -> Files:
    names = dict.fromkeys(name for name in (result.clip, result.poster, result.silent, result.file) if name)
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def put(files: Files, folder: Path) -> None:
    """Write them, each whole or not at all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / Path(name).name
        unfinished = path.with_name(f".{path.name}.part")
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
