"""A LoRA that comes into the LoRA folder through the page: named safely, looked at by content, in nobody else's place.

It arrives in a folder that no scan looks into (`.arriving`, one folder each), and is moved to its place when it is
whole and is a LoRA of a model that is known here. What an app that was killed has left there goes with the next one.
"""

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from wan_ui import limits
from wan_ui.errors import UserError
from wan_ui.families import TRANSFORMERS
from wan_ui.loras.checksums import sha256
from wan_ui.loras.folder import read_file
from wan_ui.settings import Settings
from wan_ui.valid_text import valid_text

ARRIVING = ".arriving"
LEFT = 86_400.0  # seconds after which what lies there belongs to nobody
SUFFIX = ".safetensors"
LONGEST = 120  # characters of a name, and
MOST_BYTES = 200  # in UTF-8: file systems take 255, with the ending and a number
HUBS = ("huggingface.co", "www.huggingface.co", "hf.co")
PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
# Names that many repositories give to their only file: with the repository's name they say what it is.
COMMON = re.compile(r"(?i)(pytorch_lora_weights|adapter_model|lora|model|(high|low)[-_]?noise[-_]?(model|lora)?)")
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # on Windows, whatever the ending


@dataclass(frozen=True)
class Link:
    """repo, revision and file as the hub has them; name: that it gets here."""

    repo: str
    revision: str
    file: str
    name: str

    def url(self, settings: Settings) -> str:
        return f"{settings.hub}/{self.repo}/resolve/{quote(self.revision, safe='')}/{quote(self.file)}"


def read_link(words: str, settings: Settings) -> Link:
    """Of "owner/repo/file.safetensors", or of a file's address on the hub as a browser shows or copies it. Raises
    UserError."""
    words = words.strip()
    known = (*HUBS, urlsplit(settings.hub).hostname)
    if "://" in words or words.partition("/")[0].lower() in known:
        parts = urlsplit(words if "://" in words else f"https://{words}")
        if parts.scheme not in ("http", "https") or parts.hostname not in known or parts.username is not None:
            raise UserError(
                "link: only files of Hugging Face are fetched; download others yourself and send the file", field="link"
            )
        words = unquote(parts.path).strip("/")
    found = re.fullmatch(rf"({PART}/{PART})(?:/(?:resolve|blob)/(refs/[a-z]+/[0-9]+|{PART}))?[/:](.+)", words, re.ASCII)
    if found is None or found[3] in ("resolve", "blob") or found[3].startswith("tree/"):
        raise UserError(
            "link: expected owner/repo/file.safetensors, or the address of one file of a repository: open it on "
            "Hugging Face, go to “Files”, and copy the download link of the file",
            field="link",
        )
    repo, revision, file = found[1], found[2] or "main", found[3]
    pieces = file.split("/")
    if not file.isprintable() or any(piece in ("", ".", "..") or "\\" in piece for piece in pieces):
        raise UserError("link: that is no file of a repository", field="link")
    stem = pieces[-1].removesuffix(SUFFIX)
    name = f"{repo.partition('/')[2]}_{pieces[-1]}" if COMMON.fullmatch(stem) else pieces[-1]
    return Link(repo, revision, file, safe_name(name, "link"))


def safe_name(name: str, field: str = "file") -> str:
    """A file's name that every system takes, for the one that was sent. Raises UserError for another kind of file."""
    name = re.split(r"[/\\]", valid_text(name))[-1]
    if not name.lower().endswith(SUFFIX):
        raise UserError(
            f"{field}: {name[-60:]!r} is not taken: a LoRA is a .safetensors file; pickles (.pt, .pth, .ckpt, .bin) "
            "can run code when they are opened",
            field=field,
        )
    stem = re.sub(r"[^\w .()+&,=\[\]-]", "_", name[: -len(SUFFIX)])
    stem = " ".join(stem.split()).strip(" .-")[:LONGEST].encode()[:MOST_BYTES].decode("utf-8", "ignore")
    if not stem or RESERVED.fullmatch(stem):
        stem = f"lora_{stem}".rstrip("_")
    return stem + SUFFIX


def check_room(size: int, settings: Settings, field: str = "file") -> None:
    """Raises UserError where a LoRA of that many bytes is not taken."""
    if size > limits.LORA_GB * 1e9:
        raise UserError(
            f"{field}: it has {size / 1e9:.2f} GB; a LoRA may have {limits.LORA_GB:g} GB. Put larger ones into "
            "the folder yourself",
            field=field,
        )
    there = sum(path.stat().st_size for path in _files(settings.loras))
    if there + size > limits.LORAS_GB * 1e9:
        words = f"with it there would be {(there + size) / 1e9:.1f} GB; the page fills it up to {limits.LORAS_GB:g} GB"
        raise UserError(f"{field}: the LoRA folder is full: {words}. Delete some", field=field)
    try:
        settings.loras.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(settings.loras).free
    except OSError as error:
        raise UserError(f"{field}: the LoRA folder cannot be used ({error.strerror}); set WAN_UI_LORAS") from None
    if free - size < limits.MIN_FREE_MB * 1e6:
        raise UserError(f"disk: only {free / 1e9:.2f} GB are free where the LoRA folder is", field=field)


def _files(folder: Path) -> Iterator[Path]:
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here) / name
            if path.is_file() and not path.is_symlink():
                yield path


@contextmanager
def arriving(settings: Settings) -> Iterator[Path]:
    """A new folder below the LoRA folder for one file, which is gone afterwards. Raises UserError."""
    place = settings.loras / ARRIVING
    try:
        place.mkdir(parents=True, exist_ok=True)
        for left in place.iterdir():
            if left.stat().st_mtime < time.time() - LEFT:
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=place))
    except OSError as error:
        raise UserError(f"file: the LoRA folder cannot be written ({error.strerror}); set WAN_UI_LORAS") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            place.rmdir()  # where nothing else arrives


def keep(path: Path, settings: Settings, field: str = "file") -> str:
    """Move a file that has arrived, under its own name, into the LoRA folder; the name that it has there.

    Raises UserError where it is no LoRA that can be used, or is there already.
    """
    entry = read_file(path, path.name)
    if entry.problem:
        raise UserError(f"{field}: {path.name} was not kept: {entry.problem}", field=field)
    if entry.fits not in TRANSFORMERS:
        raise UserError(f"{field}: {path.name} was not kept: {entry.fits_why}", field=field)
    size = path.stat().st_size
    for other in _files(settings.loras):
        if ARRIVING in other.parts or other.suffix.lower() != SUFFIX or other.stat().st_size != size:
            continue
        if sha256(other) == sha256(path):
            there = other.relative_to(settings.loras).as_posix()
            raise UserError(f"{field}: the same file is here already, as {there}", field=field)
    taken = {name.lower() for name in os.listdir(settings.loras)}
    number = 1
    while True:
        name = path.name if number == 1 else f"{path.stem}-{number}{SUFFIX}"
        number += 1
        if name.lower() in taken:
            continue
        try:
            (settings.loras / name).open("xb").close()  # ours from now on: nothing is ever overwritten
        except FileExistsError:
            continue
        os.replace(path, settings.loras / name)
        return name
