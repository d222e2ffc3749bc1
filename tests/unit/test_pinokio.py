"""The folder pinokio/: Pinokio is not here, so its scripts are read by node as Pinokio reads them, and the way forth
and back is walked by git in a clone."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from playwright._impl._driver import compute_driver_executable

from wan_ui.settings import ROOT

FOLDER = ROOT / "pinokio"
SCRIPTS = ("install.js", "start.js", "update.js", "back.js", "reset.js")
READ = """
const menus = {}
const launcher = require("./pinokio.js")
const states = {
  "new": {}, "installing": {running: "install.js"}, "installed": {there: true},
  "starting": {there: true, running: "start.js"}, "started": {there: true, running: "start.js", url: "http://x:1"},
}
const told = async () => {
  for (const [name, state] of Object.entries(states)) {
    menus[name] = await launcher.menu({}, {
      exists: (path) => path === "../.venv" && !!state.there,
      running: (file) => file === state.running,
      local: () => ({url: state.url}),
    })
  }
  const scripts = Object.fromEntries(process.argv.slice(1).map((file) => [file, require("./" + file)]))
  console.log(JSON.stringify({menus, scripts, version: launcher.version, icon: launcher.icon}))
}
told()
"""


@pytest.fixture(scope="module")
def told() -> dict:
    node = shutil.which("node") or compute_driver_executable()[0]  # playwright brings one
    done = subprocess.run([node, "-e", READ, *SCRIPTS], cwd=FOLDER, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def commands(script: dict) -> list[str]:
    lines = [step["params"].get("message", []) for step in script["run"]]
    return [line for given in lines for line in ([given] if isinstance(given, str) else given)]


def test_each_state_offers_what_can_be_done_in_it(told):
    links = {name: [entry["href"] for entry in menu] for name, menu in told["menus"].items()}
    assert links["new"] == links["installing"] == ["install.js"] and links["starting"] == ["start.js"]
    assert links["started"] == ["http://x:1", "start.js"]
    assert links["installed"] == ["start.js", "update.js", "back.js", "install.js", "reset.js"]
    for menu in told["menus"].values():
        assert [entry.get("default", False) for entry in menu] == [True] + [False] * (len(menu) - 1)
        assert all(entry["text"] and entry["icon"] for entry in menu)
    assert (FOLDER / told["icon"]).is_file()


def test_its_steps_are_pinokio_s_and_run_in_the_checkout(told):
    for name, script in told["scripts"].items():
        for step in script["run"]:
            assert step["method"] in ("shell.run", "local.set", "fs.rm"), name
            if step["method"] == "shell.run":
                assert (FOLDER / step["params"]["path"]).resolve() == ROOT
    assert told["scripts"]["reset.js"]["run"][0]["params"] == {"path": "../.venv"}


def test_what_is_installed_is_pinned(told):
    torch = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch=="))
    for name in ("install.js", "update.js", "back.js"):
        packages = commands(told["scripts"][name])[-2:]
        assert packages[0] == "uv pip install --no-deps --require-hashes -r requirements.lock"
        assert packages[1].endswith(f" {torch}")
    assert (ROOT / "requirements.lock").is_file()


def test_the_address_of_the_page_is_found_in_what_it_prints(told):
    shell, kept = told["scripts"]["start.js"]["run"]
    event = shell["params"]["on"][0]["event"]
    found = re.search(event.strip("/").replace(r"\/", "/"), "INFO wan\nWan UI: http://127.0.0.1:7861/\n")
    assert found and found[1] == "http://127.0.0.1:7861"
    assert kept["params"] == {"url": "{{input.event[1]}}"} and told["scripts"]["start.js"]["daemon"]
    assert (ROOT / shell["params"]["message"].split()[1]).is_file()
    assert 'f"Wan UI: {page.local_url}"' in (ROOT / "wan_ui/ui/launch.py").read_text(encoding="utf-8")


def test_an_update_can_be_taken_back_and_made_again(told, tmp_path):
    """By its own commands, in a clone; what a user has made there stays."""

    def git(folder: Path, *words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", *identity, *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    def commit(text: str) -> str:
        (origin / "file").write_text(text)
        git(origin, "add", ".")
        git(origin, "commit", "-qm", text)
        return git(origin, "rev-parse", "HEAD")

    def press(name: str) -> str:
        for line in commands(told["scripts"][name]):
            if line.startswith("git "):
                git(clone, *line.split()[1:])
        return git(clone, "rev-parse", "HEAD")

    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "main")
    first = commit("first")
    git(tmp_path, "clone", "-q", str(origin), str(clone))
    (clone / "outputs").mkdir()
    (clone / "outputs" / "clip.mp4").write_text("a clip")
    second = commit("second")
    assert press("update.js") == press("update.js") == second  # there was nothing new: the way back is the same
    assert press("back.js") == first
    assert press("update.js") == second
    assert (clone / "outputs" / "clip.mp4").read_text() == "a clip"
    assert git(clone, "status", "-sb").startswith("## main")
