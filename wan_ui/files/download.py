"""Downloads: fetch what a model and scheme need, with sizes first, resumed and verified.

Only the files that an engine reads are asked for (wan_ui.files.places.needed_files), so the base
repositories' own DIT shards, tens of gigabytes that the scheme's files replace, are never fetched, while
the experts' config.json are. A file is written as `.NAME.<etag>.part` beside its place and gets its name
once size and checksum are right: a file under its own name is whole. LFS files are checked by sha256,
small ones by git's blob hash; both are the ETag that the hub sends, and must agree with what the catalog knows.
Who writes a file holds a lock beside it: a second download of it, by another process, waits and finds it there.
"""

import contextlib
import hashlib
import os
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from wan_ui import __version__, locks
from wan_ui.catalog import Model, Scheme
from wan_ui.errors import UserError
from wan_ui.files import copies, hub, places
from wan_ui.files.hub import LOOK
from wan_ui.settings import Settings, proxies

CHUNK = 1 << 20  # bytes
ATTEMPTS = 5  # per file; each goes on where the last one broke off
PAUSE = 2.0  # seconds before the second attempt, doubled with each further one
PASSING = (408, 425, 429)  # answers in the 400s after which another attempt makes sense
TIMEOUT = 30.0  # seconds without a byte
HEADERS = {"User-Agent": f"wan-ui/{__version__}", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Item:
    """One file: where from, where to, what is known of it. `have` counts bytes of an unfinished download.

    xet        it is in Xet's store
    elsewhere  files of this machine of the same size, which may be the same: see wan_ui.files.copies
    """

    repo: str
    file: str
    url: str
    target: Path
    size: int
    etag: str
    revision: str
    have: int = 0
    present: bool = False
    xet: bool = False
    elsewhere: tuple[Path, ...] = ()

    @property
    def part(self) -> Path:
        return self.target.with_name(f".{self.target.name}.{self.etag[:12]}.part")

    @property
    def left(self) -> int:
        return 0 if self.present else self.size - self.have


# Called with (item, bytes of this file that are there) while it arrives, and again and again while nothing does.
OnBytes = Callable[[Item, int], None]
# Called with (item, the file of this machine that it was linked to) where it need not be downloaded.
OnFound = Callable[[Item, Path], None]


def plan(
    model: Model, scheme: Scheme, settings: Settings, engine: str, *, check: bool = False, draft: bool = False
) -> list[Item]:
    """Every file of the model and scheme. Asks the hub for sizes and checksums of those that are not there.

    draft  the small decoder of drafts, too
    check  also compare files in the models folder with the hub's checksum; a wrong one is fetched again
    Raises UserError: an embedded model, or no network (listing each file, where it is, where to put it).
    """
    if model.embedded:
        raise UserError(f"{model.name} ships with Wan UI; there is nothing to download")
    found = places.files(model, scheme, settings, engine, draft)
    # A file here whose size differs from the catalog's is not whole, whoever put it there.
    wrong = {ref for ref, path in found.items() if path is not None and _wrong_size(model, ref, path)}
    items, unreachable = [], ""
    for ref, path in found.items():
        repo, file = places.split(ref)
        target = settings.models / repo / file
        if path is not None and ref not in wrong and not (check and path == target):
            revision = model.revision(repo)
            items.append(Item(repo, file, "", path, path.stat().st_size, "", revision, present=True))
            continue
        try:
            item = describe(repo, file, target, places.address(model, ref, settings))
        except OSError as error:
            unreachable = str(getattr(error, "reason", "") or error)
            break
        _compare(item, model)
        items.append(item if path != target or ref in wrong else checked(item))
    if unreachable:
        missing = [ref for ref, path in found.items() if path is None or ref in wrong]
        lines = [f"{settings.hub} cannot be reached ({unreachable}).", *by_hand(missing, model, settings)]
        raise UserError("\n".join(lines))
    return with_copies(items, settings)


def with_copies(items: Iterable[Item], settings: Settings) -> list[Item]:
    """The items; of those that are to be downloaded with what on this machine may be the same file."""
    sizes = {item.size for item in items if not item.present}
    by_size = copies.by_size(settings, sizes) if sizes else {}
    return [
        item if item.present else replace(item, elsewhere=copies.candidates(item.etag, item.size, item.target, by_size))
        for item in items
    ]


def by_hand(refs: list[str], model: Model, settings: Settings) -> list[str]:
    """Which file, from where, where to put it."""
    lines = ["Fetch these files on another machine and put them in place:"] if refs else []
    for ref in refs:
        repo, file = places.split(ref)
        size = model.known(repo, file)
        words = f" ({'' if size.size else 'about '}{size.shown / 1e9:.2f} GB)" if size.shown else ""
        lines.append(f"  {places.address(model, ref, settings)}{words} -> {settings.models / repo / file}")
    return lines


def _wrong_size(model: Model, ref: str, path: Path) -> bool:
    repo, file = places.split(ref)
    if path.name != Path(file).name:  # another converter's file serves in its place
        return False
    size = model.known(repo, file).size
    return bool(size) and path.stat().st_size != size


def _compare(item: Item, model: Model) -> None:
    """The hub must offer the file that the catalog means. Raises UserError."""
    known = model.known(item.repo, item.file)
    same = known.size in (0, item.size) and (not known.sha256 or len(item.etag) != 64 or known.sha256 == item.etag)
    if not same:
        raise UserError(
            f"{item.url}: the hub offers {item.size:,} bytes with checksum {item.etag[:12]}, the catalog means "
            f"{known.size or item.size:,} bytes{f' with {known.sha256[:12]}' if known.sha256 else ''}. "
            "The repository has been changed; correct [repositories] in configs/catalog.toml if that is wanted."
        )


def _check_proxy(url: str) -> None:
    """Raises UserError for a SOCKS proxy."""
    scheme, host = urlsplit(url).scheme, urlsplit(url).netloc
    proxy = "" if urllib.request.proxy_bypass(host) else proxies().get(scheme, "")
    if proxy.lower().startswith("socks"):
        raise UserError(
            f"{url}: downloads cannot go through the SOCKS proxy {proxy}; set {scheme.upper()}_PROXY to an HTTP proxy, "
            f"or to nothing along with ALL_PROXY"
        )


def describe(repo: str, file: str, target: Path, url: str) -> Item:
    """Size, checksum and revision of one file at the hub. OSError without a network, UserError if it is gone."""
    _check_proxy(url)
    try:
        facts = hub.describe(url, TIMEOUT)
    except hub.Refused as error:
        if error.status >= 500 or error.status in PASSING:
            raise OSError(str(error)) from None
        raise _refused(repo, url, error) from None
    item = Item(repo, file, url, target, facts.size, facts.etag, facts.commit, xet=facts.xet)
    have = item.part.stat().st_size if item.part.is_file() else 0
    return replace(item, have=have if have <= item.size else 0)


def checked(item: Item) -> Item:
    """The item; present where the file at its place is whole."""
    whole = item.target.stat().st_size == item.size and _matches(item, item.target)
    return replace(item, present=whole)


def fetch(
    items: list[Item],
    on_bytes: OnBytes = lambda item, done: None,
    on_found: OnFound = lambda item, path: None,
) -> None:
    """Bring what is not present: linked where this machine has it, else downloaded. Raises UserError for a full disk, a
    broken connection or a wrong checksum."""
    wanted = [item for item in items if not item.present]
    for item in wanted:
        try:
            item.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{item.target.parent}: {error.strerror}; set WAN_UI_MODELS to another folder") from None
    _check_room([item for item in wanted if not item.elsewhere])
    for item in wanted:
        _fetch(item, on_bytes, on_found)


def _check_room(items: list[Item]) -> None:
    if not items:
        return
    free = shutil.disk_usage(items[0].target.parent).free
    needed = sum(item.left for item in items)
    if needed > free:
        raise UserError(
            f"disk: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free in "
            f"{items[0].target.parent}; set WAN_UI_MODELS to a larger disk"
        )


def _fetch(item: Item, on_bytes: OnBytes, on_found: OnFound) -> None:
    with _only_here(item, on_bytes) as to_do:
        if not to_do:
            on_bytes(item, item.size)
            return
        for path in item.elsewhere:
            if copies.is_there(path, item.size) and _matches(item, path, on_bytes) and copies.link(path, item.target):
                item.part.unlink(missing_ok=True)
                on_found(item, path)
                on_bytes(item, item.size)
                return
        if item.elsewhere:
            _check_room([item])
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                _pause(PAUSE * 2 ** (attempt - 1), item, on_bytes)
            try:
                _receive(item, on_bytes)
            except hub.Refused as error:
                if error.status == 416:  # the part is not the beginning of this file
                    item.part.unlink(missing_ok=True)
                elif 400 <= error.status < 500 and error.status not in PASSING:
                    raise _refused(item.repo, item.url, error) from None
                reason = str(error)
                continue
            except OSError as error:
                reason = str(error) or type(error).__name__
                continue
            if _matches(item, item.part):
                os.replace(item.part, item.target)
                return
            reason = "the checksum is wrong"
            item.part.unlink()
    raise UserError(
        f"{item.url}: not complete after {ATTEMPTS} attempts ({reason}). "
        f"Run the command again to go on, or put the file at {item.target}"
    )


@contextlib.contextmanager
def _only_here(item: Item, on_bytes: OnBytes) -> Iterator[bool]:
    """Hold the file's lock; False when another process has fetched it meanwhile."""
    path = item.target.with_name(f".{item.target.name}.lock")
    try:
        while (lock := locks.take(path)) is None:
            _pause(LOOK, item, on_bytes)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; set WAN_UI_MODELS to a folder that can be written") from None
    try:
        yield not (item.target.is_file() and _matches(item, item.target))
    finally:
        locks.release(path, lock)


def _pause(seconds: float, item: Item, on_bytes: OnBytes) -> None:
    end = time.monotonic() + seconds
    while True:
        on_bytes(item, item.part.stat().st_size if item.part.is_file() else 0)
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(LOOK, left))


def _refused(repo: str, url: str, error: hub.Refused) -> UserError:
    if error.status not in (401, 403):
        return UserError(f"{url}: HTTP {error.status}; has the repository been changed?")
    page = url.partition("/resolve/")[0]
    token = "set HF_TOKEN to a token of that account, or run `hf auth login`, and start Wan UI again"
    if error.gated:
        words = f"{repo} is gated. Accept its licence at {page} with your account, then {token}"
    else:
        words = f"the hub does not give it to everybody: {repo} is private, or not there. If it is yours, {token}"
    return UserError(f"{url}: HTTP {error.status}; {words}")


def _receive(item: Item, on_bytes: OnBytes) -> None:
    """Append to the part file. OSError or Refused when that fails; UserError for the disk."""
    have = item.part.stat().st_size if item.part.is_file() else 0
    if have > item.size:
        item.part.unlink()
        have = 0
    if have == item.size:
        on_bytes(item, have)
        return
    _check_proxy(item.url)
    try:
        hub.receive(item.url, item.part, item.size, item.xet, TIMEOUT, CHUNK, lambda done: on_bytes(item, done))
    except UserError as error:
        if error.field != "disk":
            raise
        kept = "the part is kept, run the command again" if item.part.is_file() else "set WAN_UI_MODELS to a folder "
        kept += "" if item.part.is_file() else "that can be written"
        raise UserError(f"{item.part}: {error}; {kept}") from None


def _matches(item: Item, path: Path, on_bytes: OnBytes = lambda item, done: None) -> bool:
    """Whether the file has the hub's size and checksum: sha256, or git's sha1 over "blob <size>\\0" and the content.
    on_bytes: told, while it is read, that nothing of it has arrived."""
    if path.stat().st_size != item.size:
        return False
    digest = hashlib.sha256() if len(item.etag) == 64 else hashlib.sha1(f"blob {item.size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            on_bytes(item, item.have)
    return digest.hexdigest() == item.etag
