"""What must be right on a machine before the work begins: the port, and the folders that are written to.

Each of these fails later, too, but then in the middle of a library or of a job. Here it is one line that says what to
set.
"""

import errno
import io
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from wan_ui.errors import UserError
from wan_ui.settings import Settings

MIN_TEMPORARY_MB = 16  # logs of children and sound on its way to ffmpeg


def say_anything() -> None:
    """Print "?" for a character that the terminal's encoding does not have, or for half a byte of a file's name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def check_port(values: Settings) -> None:
    """Raises UserError when nothing can listen there."""
    family = socket.AF_INET6 if ":" in values.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":  # there it would mean: also while another program listens
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((values.host, values.port))
    except OSError as error:  # a name that is not known is one, too
        if error.errno == errno.EADDRINUSE:
            words = f"port: {values.port} is in use by another program; stop it, or choose another with WAN_UI_PORT"
        else:
            words = f"host: cannot listen on {values.host}, port {values.port} ({error.strerror}); set WAN_UI_HOST"
            words += " or WAN_UI_PORT" if error.errno == errno.EACCES else ""
        raise UserError(words) from None


def check_folders(values: Settings) -> None:
    """Makes the folders that are written to. Raises UserError naming the variable of the one that cannot be used."""
    check_folder(values.outputs, "outputs", "WAN_UI_OUTPUTS")
    check_folder(values.cache, "cache", "WAN_UI_CACHE")
    try:
        folder = Path(tempfile.gettempdir())
        free = shutil.disk_usage(folder).free / 1e6
    except OSError:
        raise UserError("temporary files: none of the usual folders can be written; set TMPDIR to one") from None
    if free < MIN_TEMPORARY_MB:
        raise UserError(f"temporary files: only {free:.0f} MB are free in {folder}; set TMPDIR to a folder with room")


def check_folder(folder: Path, what: str, variable: str) -> None:
    """A file is written and removed: permissions alone do not tell of a full or read-only disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(bytes(4096))
    except OSError as error:
        raise UserError(
            f"{what}: {folder} cannot be written ({error.strerror}); set {variable} to a folder that can"
        ) from None
