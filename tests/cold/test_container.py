"""The Docker image and the Space without Docker: their files, and the Dockerfile's steps on this machine.

The steps are walked one by one in a folder that stands for the image's root: COPY and ENV are done, RUN is done where
it makes folders and held against this environment where it installs, and CMD is started as the image's user, who may
write into the volume alone.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.ports import free_port
from tools import space
from wan_ui.settings import ROOT

UID = 1000
PATIENCE = 180  # seconds, for a machine that is busy ten times over


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The Space's folder."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    folder = tmp_path_factory.mktemp("container") / "space"
    space.make_folder(folder)
    return folder


def test_the_hub_would_take_the_space(folder, tmp_path):
    """As its check does: no blob of the commit is binary or large, once LFS has put pointers in place of files."""
    pointer = tmp_path / "clean.py"
    pointer.write_text(
        "import hashlib, sys\n"
        "data = sys.stdin.buffer.read()\n"
        "print('version https://git-lfs.github.com/spec/v1', f'oid sha256:{hashlib.sha256(data).hexdigest()}', "
        "f'size {len(data)}', sep='\\n')\n"
    )
    repository = tmp_path / "repository"
    shutil.copytree(folder, repository)

    def git(*words: str, given: bytes = b"") -> bytes:
        command = ["git", "-c", "core.autocrlf=false", "-c", f"filter.lfs.clean={sys.executable} {pointer}", *words]
        return subprocess.run(command, cwd=repository, check=True, capture_output=True, input=given).stdout

    git("init", "--quiet")
    git("add", ".")
    names = git("ls-files", "-s").decode().splitlines()
    blobs = io.BytesIO(git("cat-file", "--batch", given="\n".join(line.split()[1] for line in names).encode()))
    pointers = 0
    for line in names:
        size = int(blobs.readline().split()[2])  # "<name> blob <size>", then what it holds and an end of line
        data = blobs.read(size + 1)[:-1]
        assert b"\0" not in data and len(data) < 1 << 20, line
        pointers += data.startswith(b"version https://git-lfs")
    assert not blobs.read()
    assert pointers >= 20 and not any("tests/" in line for line in names)
    front = (folder / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert "sdk: docker" in front and "app_port: 7860" in front


def test_a_clone_of_this_repository_needs_no_lfs():
    assert not (ROOT / ".gitattributes").exists() or "lfs" not in (ROOT / ".gitattributes").read_text()
    assert (ROOT / "assets/wan-tiny/Wan2.1_VAE.pth").stat().st_size > 1_000_000


def instructions(text: str) -> list[tuple[str, str]]:
    """ "RUN a \\\\\\n b" -> ("RUN", "a b"), in order."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word.strip()]


def installs(requirements: Path) -> None:
    """What the image would install is what is here: what this environment lacks has been tried by nobody."""
    for line in requirements.read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("#")[0].partition(";")[0].strip().partition("==")
        if version:
            assert importlib.metadata.version(name).partition("+")[0] == version, line


@pytest.fixture
def image():
    """What stands for the image's root. Not in pytest's folder, which only its owner may enter."""
    with tempfile.TemporaryDirectory(prefix="wan-ui-image-") as folder:
        yield Path(folder) / "root"


@pytest.mark.timeout(600)
def test_the_steps_of_the_dockerfile(folder, image):
    place, environ, volume, command, health, user = image, {"PATH": os.environ["PATH"]}, "", [], [], "root"
    arguments = {"CUDA": "0"}

    def inside(path: str) -> Path:
        return image / path.lstrip("/") if path.startswith("/") else place / path

    for word, rest in instructions((folder / "Dockerfile").read_text(encoding="utf-8")):
        if word == "WORKDIR":
            place = inside(rest)
            place.mkdir(parents=True)
        elif word == "ENV":
            for part in shlex.split(rest):
                name, _, value = part.partition("=")
                value = value.replace("$PATH", environ["PATH"])
                environ[name] = str(inside(value)) if value.startswith("/home") and name != "PATH" else value
        elif word == "COPY":
            *sources, target = [part for part in rest.split() if not part.startswith("--")]
            for source in sources:
                if source == ".":
                    shutil.copytree(folder, inside(target), dirs_exist_ok=True)
                else:
                    shutil.copy(folder / source, inside(target))
        elif word == "RUN" and "pip install" in rest:
            for name in re.findall(r"-r ([^\s;]+)", rest):
                assert (place / name).is_file(), f"{name} is not copied before it is installed"
            installs(place / "requirements.txt")
            assert arguments["CUDA"] == "0"
        elif word == "RUN" and rest.startswith("mkdir -p "):
            for path in rest.split()[2:]:
                inside(path).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            user = rest
        elif word == "VOLUME":
            volume = rest
        elif word == "HEALTHCHECK":
            health = json.loads(rest.partition("CMD")[2])
        elif word == "CMD":
            command = json.loads(rest)
        else:
            assert word in ("FROM", "ARG", "EXPOSE", "RUN"), word
    assert user == "user" and health and command
    kept = [name for name in environ if name.startswith("WAN_UI_") and environ[name].startswith("/")]
    assert sorted(kept) == ["WAN_UI_CACHE", "WAN_UI_LORAS", "WAN_UI_MODELS", "WAN_UI_OUTPUTS"]
    assert all(Path(environ[name]).is_relative_to(inside(volume)) for name in kept)

    environ["WAN_UI_PORT"] = str(free_port())  # 7860 may be another program's here
    who = as_the_user(image, inside(volume))
    before = state(place)
    words = [[sys.executable, *line[1:]] for line in (command, health) if line[0] == "python"]
    log = image.parent / "container.log"
    with log.open("w") as output:
        process = subprocess.Popen(words[0], cwd=place, env=environ, stdout=output, stderr=subprocess.STDOUT, **who)
    try:
        end = time.monotonic() + PATIENCE
        while subprocess.run(words[1], cwd=place, env=environ, capture_output=True, **who).returncode:
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)  # `docker stop`
        assert process.wait(60) == 0, log.read_text()[-3000:]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert "Traceback" not in log.read_text()
    assert state(place) == before  # nothing was written beside the program
    assert (inside(volume) / "outputs" / "wan_ui.sqlite").is_file()


def as_the_user(image: Path, volume: Path) -> dict:
    """Options for subprocess: the image's user, who owns the volume alone; nobody else where we cannot be that user."""
    for path in image.rglob("*"):
        path.chmod(path.stat().st_mode & ~0o222 | 0o444)
    if os.geteuid() != 0 or not can_run_as(UID):
        for path in (volume, *volume.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        return {}
    image.parent.chmod(0o755)
    for path in (volume, *volume.rglob("*")):
        os.chown(path, UID, UID)
        path.chmod(path.stat().st_mode | 0o200)
    return {"user": UID, "group": UID, "extra_groups": []}


def can_run_as(uid: int) -> bool:
    """Not where the interpreter lies in root's own folder."""
    command = [sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"]
    try:
        return subprocess.run(command, user=uid, group=uid, extra_groups=[], capture_output=True).returncode == 0
    except OSError:
        return False


def state(folder: Path) -> dict[str, int]:
    paths = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): path.stat().st_mtime_ns for path in paths if path.is_file()}
