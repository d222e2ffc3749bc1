"""Where Wan UI's own files are: in a checkout beside the package, in an installed package inside it."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "configs").is_dir()  # as pyproject.toml packs it
DATA = PACKAGE if INSTALLED else PACKAGE.parent  # assets/ and configs/ lie there
COMMAND = "wan-ui" if INSTALLED else "python -m wan_ui"  # what a person types
