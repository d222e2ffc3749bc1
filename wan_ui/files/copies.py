"""Files of this machine that may be those that are to be downloaded: what ComfyUI, the hub's cache or another model of
the models folder has. Told by their size; whether one is the same is told by its checksum before it is linked."""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from wan_ui import system
from wan_ui.files import comfyui
from wan_ui.settings import Settings

SMALL = 1_000_000  # bytes; what is smaller is fetched sooner than it is looked for


def by_size(settings: Settings, sizes: Collection[int]) -> dict[int, list[Path]]:
    """Those of the sizes, each once. Nothing in here raises."""
    found: dict[int, list[Path]] = {}
    seen: set[tuple[int, int]] = set()
    wanted = {size for size in sizes if size >= SMALL}
    for root in _roots(settings) if wanted else ():
        for path in _files(root):
            with contextlib.suppress(OSError):
                about = path.stat()  # of what a link is for
                if about.st_size in wanted and (about.st_dev, about.st_ino) not in seen:
                    seen.add((about.st_dev, about.st_ino))
                    found.setdefault(about.st_size, []).append(path)
    return found


def candidates(etag: str, size: int, target: Path, found: Mapping[int, list[Path]]) -> tuple[Path, ...]:
    """Those that may be the file of this checksum: the ones that a cache calls so come first."""
    paths = [path for path in found.get(size, ()) if path != target]
    return tuple(sorted(paths, key=lambda path: path.name != etag))


def is_there(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def link(path: Path, target: Path) -> bool:
    """`target` is that file from now on: by a hard link, which stays when the other is deleted, else a symbolic one.
    False where neither can be made, as on some network drives."""
    source = path.resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.link")
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)
    for make in system.LINKS:
        try:
            make(source, part)
            os.replace(part, target)
            return True
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    return False


def _roots(settings: Settings) -> Iterator[Path]:
    from huggingface_hub import constants

    yield Path(constants.HF_HUB_CACHE)
    yield from comfyui.folders(settings, *comfyui.KINDS)
    yield settings.models


def _files(root: Path) -> Iterator[Path]:
    """Its files in the order of their names, without what is half-made."""
    for folder, folders, names in os.walk(root, onerror=None):
        folders.sort()
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith(".incomplete"):
                yield Path(folder, name)
