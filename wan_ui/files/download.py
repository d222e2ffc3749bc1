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
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPMessage
from io import BufferedWriter
from pathlib import Path
from typing import IO, Literal
from urllib.parse import urlsplit

from wan_ui import __version__, locks
from wan_ui.catalog import Model, Scheme
from wan_ui.errors import UserError
from wan_ui.files import places
from wan_ui.settings import Settings, proxies

CHUNK = 1 << 20  # bytes
ATTEMPTS = 5  # per file; each goes on where the last one broke off
PAUSE = 2.0  # seconds before the second attempt, doubled with each further one
LOOK = 0.2  # seconds between reports while nothing arrives: whoever listens may end the download
PASSING = (408, 425, 429)  # answers in the 400s after which another attempt makes sense
TIMEOUT = 30.0  # seconds without a byte
HEADERS = {"User-Agent": f"wan-ui/{__version__}", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Item:
    """One file: where from, where to, what is known of it. `have` counts bytes of an unfinished download."""

    repo: str
    file: str
    url: str
    target: Path
    size: int
    etag: str
    revision: str
    have: int = 0
    present: bool = False

    @property
    def part(self) -> Path:
        return self.target.with_name(f".{self.target.name}.{self.etag[:12]}.part")

    @property
    def left(self) -> int:
        return 0 if self.present else self.size - self.have


# Called with (item, bytes of this file that are there) while it arrives, and again and again while nothing does.
OnBytes = Callable[[Item, int], None]


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
    return items


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


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follow redirects within the hub (a renamed repository), but not to the store that holds the bytes."""

    def redirect_request(
        self, request: urllib.request.Request, file: IO[bytes], code: int, message: str, headers: HTTPMessage, url: str
    ) -> urllib.request.Request | None:
        here, there = urlsplit(request.full_url).netloc, urlsplit(url).netloc
        return super().redirect_request(request, file, code, message, headers, url) if here == there else None


def _opener(request: urllib.request.Request, *handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """Through the host's proxy, if there is one for this address. Raises UserError for a SOCKS proxy."""
    chosen = proxies()
    proxy = "" if urllib.request.proxy_bypass(request.host) else chosen.get(request.type, "")
    if proxy.lower().startswith("socks"):
        name = f"{request.type.upper()}_PROXY"
        raise UserError(
            f"{request.full_url}: downloads cannot go through the SOCKS proxy {proxy}; set {name} to an HTTP proxy, or "
            f"to nothing along with ALL_PROXY"
        )
    return urllib.request.build_opener(urllib.request.ProxyHandler(chosen), *handlers)


def describe(repo: str, file: str, target: Path, url: str) -> Item:
    """Size, checksum and revision of one file at the hub. OSError without a network, UserError if it is gone."""
    request = urllib.request.Request(url, method="HEAD", headers=HEADERS)
    try:
        with _opener(request, _StayHere()).open(request, timeout=TIMEOUT) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code in PASSING:
            raise OSError(f"HTTP {error.code}") from None
        if error.code >= 400:
            raise _refused(url, error) from None
        headers = error.headers  # the redirect itself says what waits behind it
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    etag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    if not size.isdigit() or len(etag) not in (40, 64):
        raise UserError(f"{url}: the hub names neither size nor checksum")
    item = Item(repo, file, url, target, int(size), etag, headers.get("X-Repo-Commit", ""))
    have = item.part.stat().st_size if item.part.is_file() else 0
    return replace(item, have=have if have <= item.size else 0)


def checked(item: Item) -> Item:
    """The item; present where the file at its place is whole."""
    whole = item.target.stat().st_size == item.size and _matches(item, item.target)
    return replace(item, present=whole)


def fetch(items: list[Item], on_bytes: OnBytes = lambda item, done: None) -> None:
    """Download what is not present. Raises UserError for a full disk, a broken connection or a wrong checksum."""
    wanted = [item for item in items if not item.present]
    for item in wanted:
        try:
            item.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{item.target.parent}: {error.strerror}; set WAN_UI_MODELS to another folder") from None
    if wanted:
        free = shutil.disk_usage(wanted[0].target.parent).free
        needed = sum(item.left for item in wanted)
        if needed > free:
            raise UserError(
                f"disk: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free in "
                f"{wanted[0].target.parent}; set WAN_UI_MODELS to a larger disk"
            )
    for item in wanted:
        _fetch(item, on_bytes)


def _fetch(item: Item, on_bytes: OnBytes) -> None:
    with _only_here(item, on_bytes) as to_do:
        if not to_do:
            on_bytes(item, item.size)
            return
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                _pause(PAUSE * 2 ** (attempt - 1), item, on_bytes)
            try:
                for done in _receive(item):
                    on_bytes(item, done)
            except urllib.error.HTTPError as error:
                if error.code == 416:  # the part is not the beginning of this file
                    item.part.unlink(missing_ok=True)
                elif 400 <= error.code < 500 and error.code not in PASSING:
                    raise _refused(item.url, error) from None
                reason = str(error)
                continue
            except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
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


def _refused(url: str, error: urllib.error.HTTPError) -> UserError:
    if error.code in (401, 403):
        return UserError(f"{url}: HTTP {error.code}; the hub does not give it to everybody (a gated repository?)")
    return UserError(f"{url}: HTTP {error.code}; has the repository been changed?")


def _receive(item: Item) -> Iterator[int]:
    """Append to the part file; yields its size. OSError or HTTPException when the connection breaks."""
    have = item.part.stat().st_size if item.part.is_file() else 0
    if have > item.size:
        item.part.unlink()
        have = 0
    if have == item.size:
        yield have
        return
    headers = HEADERS | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(item.url, headers=headers)
    with _opener(request).open(request, timeout=TIMEOUT) as answer:
        resumed = answer.status == 206
        have = have if resumed else 0
        with _open_part(item, "ab" if resumed else "wb") as file:
            while chunk := answer.read1(CHUNK):  # what is there: a slow line is heard of, too
                try:
                    file.write(chunk)
                    file.flush()
                except OSError as error:
                    raise UserError(f"{item.part}: {error.strerror}; the part is kept, run the command again") from None
                have += len(chunk)
                yield have
    if have < item.size:
        raise OSError(f"the connection ended after {have} of {item.size} bytes")


def _open_part(item: Item, mode: Literal["ab", "wb"]) -> BufferedWriter:
    try:
        return item.part.open(mode)
    except OSError as error:
        raise UserError(f"{item.part}: {error.strerror}; set WAN_UI_MODELS to a folder that can be written") from None


def _matches(item: Item, path: Path) -> bool:
    """Whether the file has the hub's size and checksum: sha256, or git's sha1 over "blob <size>\\0" and the content."""
    if path.stat().st_size != item.size:
        return False
    digest = hashlib.sha256() if len(item.etag) == 64 else hashlib.sha1(f"blob {item.size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == item.etag
