"""Make the folder of a Hugging Face Space: python tools/space.py FOLDER [--zerogpu] [--upload OWNER/NAME]

The hub refuses binary files in plain git; they must be in LFS or Xet. This repository keeps them in plain git, so that
a clone needs no git-lfs. The Space's folder has the same files, without tests, and a .gitattributes that names every
binary file of it for LFS.

--zerogpu makes one for Hugging Face's ZeroGPU, a Gradio Space whose GPU is lent (space/): its README.md and app.py take
the place of those of the root, and what it needs beside the others stands at the end of its requirements.txt.

--upload sends it with huggingface_hub, which needs neither git nor git-lfs (`hf auth login` first). By hand:

    cd FOLDER && git init -b main && git lfs install --local && git add . && git commit -m "Wan UI"
    git push --force https://huggingface.co/spaces/OWNER/NAME main
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ZEROGPU = "space/"
LEFT_OUT = ("tests/", "benchmarks/", "pinokio/", ".ci/", ".pre-commit-config.yaml", ".gitattributes")
LFS = "filter=lfs diff=lfs merge=lfs -text"
LARGE = 1 << 20  # bytes; a text of that size is better in LFS, too


def make_folder(folder: Path, zerogpu: bool = False) -> list[str]:
    """Copy what is tracked into an empty or new folder; the names that go to LFS. Raises SystemExit."""
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"error: {folder} is not empty; name a new folder")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    names = [name for name in listed.decode().split("\0") if name and not name.startswith((*LEFT_OUT, ZEROGPU))]
    names = [name for name in names if not (zerogpu and name in ("Dockerfile", "compose.yaml"))]
    binary = []
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        shutil.copymode(ROOT / name, target)
        data = target.read_bytes()
        if b"\0" in data or len(data) > LARGE:
            binary.append(name)
    if zerogpu:
        for name in ("README.md", "app.py"):
            shutil.copyfile(ROOT / ZEROGPU / name, folder / name)
        needed = [(ROOT / where / "requirements.txt").read_text(encoding="utf-8") for where in ("", ZEROGPU)]
        (folder / "requirements.txt").write_text("".join(needed), encoding="utf-8")
    lines = [f"{name.replace(' ', '[[:space:]]')} {LFS}" for name in binary]
    (folder / ".gitattributes").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return binary


def upload(folder: Path, name: str, sdk: str) -> None:
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo(name, repo_type="space", space_sdk=sdk, exist_ok=True)
    hub.upload_folder(repo_id=name, repo_type="space", folder_path=folder, commit_message="Wan UI", delete_patterns="*")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder")
    parser.add_argument("--zerogpu", action="store_true", help="a Gradio Space, whose GPU is lent")
    parser.add_argument("--upload", metavar="OWNER/NAME", help="make this Space, or replace its files")
    args = parser.parse_args(argv)
    binary = make_folder(args.folder, args.zerogpu)
    print(f"{args.folder}: ready; {len(binary)} binary files are for LFS")
    if args.upload:
        upload(args.folder, args.upload, "gradio" if args.zerogpu else "docker")
        print(f"https://huggingface.co/spaces/{args.upload}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
