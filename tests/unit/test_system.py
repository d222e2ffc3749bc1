"""What Windows and macOS lack is named in few files, and the program works where it is not there.

Neither system was there to try. A process of its own hides what they lack (hidden.py) and makes a clip.
"""

import ast
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wan_ui import system
from wan_ui.lipsync import faces
from wan_ui.media import cpu_limit, decoder
from wan_ui.settings import ROOT, user_folder

SEAMS = ("wan_ui/system.py", "wan_ui/media/cpu_limit.py", "wan_ui/cluster/")  # Ray's workers are for Linux
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "syslog", "posix", "msvcrt", "winreg"}
WORDS = {
    "os": "fork forkpty getuid geteuid getgid killpg kill setsid getpgid nice sysconf wait4 wait3 waitpid mkfifo chown "
    "chroot uname getloadavg sched_setaffinity symlink link readlink statvfs fchmod O_NOFOLLOW O_DIRECTORY fdatasync "
    "sync pread pwrite sendfile openpty setpriority posix_fadvise setuid setgid umask memfd_create",
    "signal": "SIGHUP SIGKILL SIGSTOP SIGCONT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGQUIT SIGXCPU alarm setitimer "
    "pause pthread_kill pthread_sigmask sigwait sigpending siginterrupt",
    "socket": "AF_UNIX SO_REUSEPORT",
}
NAMES = {module: words.split() for module, words in WORDS.items()}


def lacking(code: str) -> list[str]:
    """Names in it that one of the systems does not have."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if node.module in MODULES else []
            found += [alias.name for alias in node.names if alias.name in NAMES.get(node.module or "", ())]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [node.attr] if node.attr in NAMES.get(node.value.id, ()) else []
            found += [node.attr] if node.attr in ("symlink_to", "hardlink_to") else []
        elif isinstance(node, ast.keyword):
            found += [node.arg] if node.arg in ("preexec_fn", "pass_fds", "process_group") else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "%-" in node.value:
            found += [code for code in ("%-d", "%-m", "%-H", "%-I") if code in node.value]  # of strftime
    return found


def test_what_other_systems_lack_is_named_in_few_files():
    files = [ROOT / "app.py", *sorted((ROOT / "wan_ui").rglob("*.py"))]
    names = {path.relative_to(ROOT).as_posix(): lacking(path.read_text(encoding="utf-8")) for path in files}
    assert {name: found for name, found in names.items() if found and not name.startswith(SEAMS)} == {}
    assert names["wan_ui/system.py"] and names["wan_ui/media/cpu_limit.py"]


def test_the_search_finds_what_it_is_for():
    code = "import fcntl\nfrom os import fork\nos.killpg(1, signal.SIGKILL)\nf(preexec_fn=x)\na.symlink_to(b)\n'%-d'"
    assert sorted(lacking(code)) == ["%-d", "SIGKILL", "fcntl", "fork", "killpg", "preexec_fn", "symlink_to"]
    assert lacking("os.path.join(a); signal.SIGINT; os.replace(a, b); process.kill(); match.group(1)") == []


@pytest.mark.timeout(300)
def test_a_clip_is_made_where_none_of_that_is_there(tmp_path, picture):
    """Locks, the queue's thread, the worker, ffmpeg's limit: all in one."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "tests.unit.hidden", str(tmp_path / "there"), str(picture)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "all of it", done.stdout + done.stderr


def test_a_decoder_that_computes_too_long_is_ended_by_the_watch_too(monkeypatch):
    """As by the system's own limit: ffmpeg is asked for noise without end."""
    command = ["-f", "lavfi", "-i", "mandelbrot=size=1920x1080", "-f", "null", "-"]
    monkeypatch.setattr(cpu_limit, "LOOK", 0.01)
    for kind in (cpu_limit.SystemLimit, cpu_limit.Watch):
        monkeypatch.setattr(decoder, "limited", kind)
        with pytest.raises(decoder.DecodeError) as told:
            list(decoder.read(command, 1, lambda given: 0.5))
        assert told.value.stopped


def test_a_decoder_that_nobody_wants_to_hear_is_ended_by_either(monkeypatch):
    command = ["-f", "lavfi", "-i", "testsrc", "-f", "rawvideo", "-"]
    for kind in (cpu_limit.SystemLimit, cpu_limit.Watch):
        limits = []

        def made(process, seconds, kind=kind, limits=limits):
            limits.append(kind(process, seconds))
            return limits[-1]

        monkeypatch.setattr(decoder, "limited", made)
        parts = decoder.read(command, 1000, lambda given: 60.0)
        assert len(next(parts)) == 1000
        parts.close()
        assert limits[0].process.returncode == -signal.SIGKILL


def test_a_child_is_ended_with_what_it_has_started_where_there_are_no_groups_of_processes(monkeypatch):
    inner = "import time; time.sleep(600)"
    start = f"p = s.Popen([sys.executable, '-c', {inner!r}])"
    code = f"import subprocess as s, sys; {start}; print(p.pid, flush=True); p.wait()"  # it is there to be asked
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    monkeypatch.delattr(os, "killpg")
    system.end_family(process)
    process.wait()
    process.stdout.close()
    while system.psutil.pid_exists(grandchild) and system.psutil.Process(grandchild).status() != "zombie":
        time.sleep(0.01)  # as long as it takes: the test's own limit of time says when that is too long


def test_limits_that_the_system_does_not_have_are_left_out(monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(system, "resource", None)
    assert system.most_files(1_000_000) == 1_000_000 and resource.getrlimit(resource.RLIMIT_NOFILE) == before
    system.limit_addresses(1)
    assert system.peak_resident() > 10_000_000


@pytest.mark.parametrize(
    "system_name, environ, wanted",
    [
        ("linux", {}, "/home/a/.local/share/wan-ui"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/wan-ui"),
        ("darwin", {"XDG_DATA_HOME": "/data"}, "/home/a/Library/Application Support/wan-ui"),
        ("win32", {}, "/home/a/AppData/Local/wan-ui"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/wan-ui"),
    ],
)
def test_what_a_user_makes_lies_where_the_system_keeps_such(system_name, environ, wanted):
    assert user_folder(system_name, environ, Path("/home/a")) == Path(wanted)


def test_the_face_finder_is_named_as_each_system_s_wheel_has_it(monkeypatch):
    opened = []

    class Library:
        def __init__(self, path):
            opened.append(path.rpartition("/")[2])

        def __getattr__(self, name):
            opened.append(name)
            return lambda *given: None

    monkeypatch.setattr(faces.ctypes, "CDLL", Library)
    for name in ("linux", "win32"):
        monkeypatch.setattr(faces.sys, "platform", name)
        faces._library.__wrapped__()
    wanted = ["libfacedetection.so", "_Z14facedetect_cnnPhS_iii"]
    assert opened == [*wanted, "facedetection.dll", "?facedetect_cnn@@YAPEAHPEAE0HHH@Z"]
