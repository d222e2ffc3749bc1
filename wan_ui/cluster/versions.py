"""What must be equal on two machines before one runs the other's jobs: the same Wan UI, Python and Ray."""

import hashlib
import platform
from functools import lru_cache
from importlib import metadata

from wan_ui import __version__
from wan_ui.settings import ROOT

RAY_MISSING = "the package ray is not installed: `make ray`, or pip install -r requirements-ray.txt"


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Name -> version. "files" is a digest of the program's own files: two checkouts may be called the same."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "wan_ui").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "Wan UI": __version__,
        "files": digest.hexdigest()[:12],
        "Python": platform.python_version(),
        "Ray": ray_version(),
    }


def ray_version() -> str:
    """ "" when it is not installed. Nothing is imported."""
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return ""


def difference(there: dict[str, str], here: dict[str, str]) -> str:
    """What is another version there, in words; "" when nothing is."""
    for name, words in (("Wan UI", "Wan UI"), ("Python", "Python"), ("Ray", "Ray"), ("files", "files of Wan UI")):
        if there.get(name, "") != here[name]:
            return f"{words} {there.get(name) or 'of an unknown version'} there, {here[name]} here"
    return ""
