"""The commit, sizes and checksums of a model's files, asked of the hub and written into the catalog.

The catalog names what was known when it was written; a repository whose commit is not known is followed at `main`.
This asks the hub's API once per repository and changes those lines of the TOML file that are about the scheme's files,
nothing else: comments and order stay.
"""

import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from wan_ui.catalog import Model, Scheme, load_catalog
from wan_ui.errors import UserError
from wan_ui.files import found, places
from wan_ui.files.download import HEADERS, TIMEOUT
from wan_ui.settings import Settings


def pin(model: Model, scheme: Scheme, settings: Settings, engine: str, *, write: bool = True) -> list[str]:
    """What changes, a line each. Raises UserError: an embedded model, no network, a file that the hub does not have."""
    if model.embedded:
        raise UserError(f"{model.name} ships with Wan UI; there is nothing to pin")
    wanted: dict[str, list[str]] = {}
    for ref in places.needed_files(model, scheme, engine):
        if ref.startswith(found.HERE):
            continue
        repo, file = places.split(ref)
        wanted.setdefault(repo, []).append(file)
    try:
        text = settings.catalog.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"catalog {settings.catalog}: {error.strerror}") from None
    changes = []
    for repo, files in wanted.items():
        commit, known = ask(repo, settings)
        missing = [file for file in files if file not in known]
        if missing:
            raise UserError(f"{settings.hub}/{repo}: commit {commit[:7]} has no {missing[0]}; correct the catalog")
        if model.revision(repo) != commit:
            changes.append(f"{repo}: revision {commit} (was {model.revision(repo)})")
            text = _with_line(text, f'[repositories."{repo}"]', "revision", f'"{commit}"')
        for file in files:
            size, sha256 = known[file]
            before = model.known(repo, file)
            if sha256 and (before.size, before.sha256) != (size, sha256):
                changes.append(f"{repo}/{file}: {size:,} bytes, sha256 {sha256[:12]}")
                facts = f'{{ size = {size}, sha256 = "{sha256}" }}'
                text = _with_line(text, f'[repositories."{repo}".files]', f'"{file}"', facts)
    if changes and write:
        _replace(settings.catalog, text)
    return changes


def ask(repo: str, settings: Settings) -> tuple[str, dict[str, tuple[int, str]]]:
    """(commit, {file: (bytes, sha256 or "")}) of `main`. Raises UserError."""
    url = f"{settings.hub}/api/models/{repo}/revision/main?blobs=true"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS), timeout=TIMEOUT) as answer:
            values = json.loads(answer.read(64 << 20))
        commit = values["sha"]
        files = {entry["rfilename"]: _facts(entry) for entry in values["siblings"]}
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: HTTP {error.code}") from None
    except OSError as error:
        raise UserError(f"{settings.hub} cannot be reached ({getattr(error, 'reason', '') or error})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{url}: not an answer of the hub ({type(error).__name__}: {error})") from None
    if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{40}", commit):
        raise UserError(f"{url}: {commit!r} is not a commit")
    return commit, files


def _facts(entry: dict[str, Any]) -> tuple[int, str]:
    """Small files are in git itself and have no sha256."""
    lfs = entry.get("lfs") or {}
    sha256: str = lfs.get("sha256", "")
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"{sha256!r} is not a checksum")
    return int(lfs.get("size") or entry.get("size") or 0), sha256


def _with_line(text: str, header: str, key: str, value: str) -> str:
    """The catalog with `key = value` in the table `header`, in place of the line that is there or as a new one."""
    line = f"{key} = {value}"
    start = re.search(rf"^{re.escape(header)}[^\n]*\n", text, re.MULTILINE)
    if start is None:
        return f"{text.rstrip()}\n\n{header}\n{line}\n"
    end = _end(text, start.end())
    part, count = re.subn(rf"^{re.escape(key)} *=[^\n]*", line, text[start.end() : end], flags=re.MULTILINE)
    return text[: start.end()] + (part if count else f"{line}\n{part}") + text[end:]


def _end(text: str, start: int) -> int:
    """Where the table that begins before `start` ends."""
    following = re.compile(r"^\[", re.MULTILINE).search(text, start)
    return following.start() if following else len(text)


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, and only if it is a catalog still. Raises UserError."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        load_catalog(part)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; copy it and set WAN_UI_CATALOG to the copy") from None
    finally:
        part.unlink(missing_ok=True)
    load_catalog.cache_clear()
