"""What SECURITY.md promises, read from the code and the lock files."""

import ast
import re

import pytest

from wan_ui.settings import ROOT

FILES = [ROOT / "app.py", *sorted((ROOT / "wan_ui").rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py"))]
LINE = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.M)


def is_torch_load(name: str) -> bool:
    return name in ("torch.load", "torch.jit.load", "torch.hub.load")


def trouble(tree: ast.AST) -> list[str]:
    """Calls that would run what a stranger has written."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            bad = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "commands", "pty"}
            found += [f"import {name}" for name in names if name.partition(".")[0] in bad]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if is_torch_load(name) and given.get("weights_only") != "True":
            found.append(f"{name} without weights_only=True")
        if name.rpartition(".")[0] in ("pickle", "marshal", "dill") and name.endswith(("load", "loads", "Unpickler")):
            found.append(name)
        if name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
            found.append("np.load with allow_pickle")
        if name in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
            found.append(name)
        if given.get("shell", "False") != "False" or name in ("os.system", "os.popen", "subprocess.getoutput"):
            found.append(f"{name} calls a shell")
        if name in ("subprocess.getstatusoutput", "asyncio.create_subprocess_shell") or name.startswith("os.spawn"):
            found.append(f"{name} calls a shell")
        if name in ("eval", "exec", "compile", "__import__"):
            found.append(name)
        if given.get("trust_remote_code", "False") != "False":
            found.append("trust_remote_code")
    return found


@pytest.mark.parametrize(
    "code, words",
    [
        ("torch.load(path)", "without weights_only"),
        ("torch.load(path, weights_only=False)", "without weights_only"),
        ("torch.load(path, weights_only=maybe)", "without weights_only"),
        ("import pickle", "import pickle"),
        ("from pickle import loads", "import pickle"),
        ("yaml.load(text, Loader=yaml.Loader)", "yaml.load"),
        ("np.load(path, allow_pickle=True)", "allow_pickle"),
        ("subprocess.run(words, shell=True)", "calls a shell"),
        ("os.system(words)", "calls a shell"),
        ("eval(text)", "eval"),
        ("AutoModel.from_pretrained(name, trust_remote_code=True)", "trust_remote_code"),
    ],
)
def test_each_of_these_would_be_seen(code, words):
    (found,) = trouble(ast.parse(code))
    assert words in found


def test_no_pickle_from_outside_no_shell_and_nothing_evaluated():
    found = {str(path.relative_to(ROOT)): trouble(ast.parse(path.read_text(encoding="utf-8"))) for path in FILES}
    assert {name: words for name, words in found.items() if words} == ALLOWED


ALLOWED = {
    # Between a group's own processes, through pipes that nobody else has.
    "wan_ui/engines/group_engine.py": ["import pickle", "pickle.loads", "pickle.loads"],
    "wan_ui/lipsync/musetalk.py": ["import pickle"],  # for the name of an error
}


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    found = {}
    for line in text.splitlines():
        if line.startswith("-r "):
            found |= pins(line[3:].strip())
        elif match := LINE.match(line):
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_lock_has_every_pin_and_a_checksum_for_each(name):
    locked, wanted = pins(f"{name}.lock"), pins(f"{name}.txt")
    assert {package: locked.get(package) for package in wanted if package != "torch"} == {
        package: version for package, version in wanted.items() if package != "torch"
    }
    text = (ROOT / f"{name}.lock").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)[1:]
    assert len(blocks) == len(locked) > 80
    for block in blocks:
        first, *rest = block.strip().splitlines()
        assert re.fullmatch(r"[A-Za-z0-9._-]+==\S+( ; [^;]+)? \\", first), first
        assert rest and all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in rest), first
    assert not re.search(r"://|--index|--find|^-", text, re.M), "no index is named"
    assert not any(re.fullmatch(r"torch|triton|nvidia-(?!ml-py).*", package) for package in locked)


def test_make_and_the_image_install_from_the_lock():
    makefile, image = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "Dockerfile"))
    for name in ("requirements.lock", "requirements-dev.lock"):
        assert f"$(PIP) -qq --no-deps --require-hashes -r {name}" in makefile
    assert "--no-deps --require-hashes -r requirements.lock" in image
    assert "-r requirements.txt" not in makefile + image and "-r requirements-dev.txt" not in makefile + image


def test_what_runs_is_what_the_tests_lock_too():
    run, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {package: dev.get(package) for package in run} == run
