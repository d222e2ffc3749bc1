"""Write requirements.lock and requirements-dev.lock anew: `make lock`, after a pin has changed.

Each has every package below the requirements with the checksums of all its files, for every system and version of
Python that there are files for. torch and what its build for CUDA brings are left out, since which files those are is a
question of the machine: see SECURITY.md.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# What {name} needs, whole, each with the checksums of its files; `make lock` writes it again.
# torch is not among them, nor what its build for CUDA brings: PyPI's build, PyTorch's for CPUs and others have the same
# version and other files. It is pinned in requirements.txt and installed after these.
"""
FREE = re.compile(r"torch|triton|nvidia-(?!ml-py).*|cuda-.*")  # nvidia-ml-py is ours, one file of Python
COMPILE = ("--generate-hashes", "--allow-unsafe", "--strip-extras", "--no-header", "--annotation-style=line")
QUIET = ("--quiet", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host")


def locked(text: str) -> list[str]:
    """The packages of what pip-compile has written, by name, without its comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    blocks = re.split(r"\n(?=[A-Za-z0-9])", "\n".join(lines))
    return sorted(block for block in blocks if not FREE.fullmatch(block.partition("==")[0]))


def main() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        target = (ROOT / name).with_suffix(".lock")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.txt"
            command = [sys.executable, "-m", "piptools", "compile", *COMPILE, *QUIET, "-o", str(out), name]
            subprocess.run(command, cwd=ROOT, check=True)
            target.write_text(HEAD.format(name=name) + "\n".join(locked(out.read_text())) + "\n", encoding="utf-8")
        print(f"{target.name}: {target.read_text().count('==')} packages")


if __name__ == "__main__":
    main()
