"""What becomes of jobs when processes are killed: a page and two nodes on this machine, Wan-Tiny, real commands.

    python benchmarks/cluster_kills.py [--only NAME ...]

The page (`serve --ray`) has no worker of its own, the nodes (`node --head`) have one each. A job is submitted, a
process is killed (SIGKILL) in its second denoise step, and the table says how the job ended. Its latents must be those
of one machine, byte for byte; and every job ends exactly once. Exit code 1 where something is otherwise.
"""

import argparse
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from wan_ui.queue.draft import Draft
from wan_ui.queue.intake import resolve
from wan_ui.queue.jobs import Job, Jobs, new_job_id
from wan_ui.queue.worker import Worker
from wan_ui.settings import ROOT, settings

PATIENCE = 400.0  # seconds for anything to happen
PICTURE = next((ROOT / "assets").rglob("*.jpg"), None) or next((ROOT / "assets").rglob("*.png"))


def parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found


def below(pid: int) -> list[int]:
    """A process and all that it has started, and so on."""
    all_of, found = parents(), [pid]
    for one in found:
        found += [child for child, parent in all_of.items() if parent == one]
    return found


def named(pids: list[int], words: str) -> int:
    for pid in pids:
        try:
            if words in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode():
                return pid
        except OSError:
            continue
    raise LookupError(words)


def until(condition, what: str):
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)
    return value


class Town:
    """A page and its nodes, with their own folders, ports and token."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port, self.head = 30_000 + os.getpid() % 1_000, f"127.0.0.1:{31_000 + os.getpid() % 1_000}"
        self.values = replace(settings(), outputs=folder / "outputs", gpus="none")
        self.jobs = Jobs(self.values.outputs / "wan_ui.sqlite")
        self.page: subprocess.Popen | None = None
        self.nodes: dict[str, subprocess.Popen] = {}
        token = secrets.token_hex(32)
        outputs = str(self.values.outputs)
        self.environment = {**os.environ, "RAY_AUTH_TOKEN": token, "WAN_UI_OUTPUTS": outputs}
        self.ended: list[str] = []

    def start_page(self) -> None:
        command = [sys.executable, "-m", "wan_ui", "-v", "serve", "--port", str(self.port), "--ray", self.head]
        self.page = self._start(command, "page", {"WAN_UI_GPUS": "none"})

    def start_node(self, name: str) -> None:
        self.nodes[name] = self._start(
            [sys.executable, "-m", "wan_ui", "node", "--head", self.head, "--name", name], name, {}
        )

    def _start(self, command: list[str], name: str, more: dict[str, str]) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.environment | more, stdout=log, stderr=log, start_new_session=True
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def joined(self, name: str, times: int = 1) -> None:
        until(lambda: self.log("page").count(f"{name}/0 at ") >= times, f"{name} has not joined")

    def submit(self, seed: int) -> str:
        job_id = new_job_id()
        draft = Draft({"image": str(PICTURE), "prompt": "pan left"}, seed=seed, **SMALL)
        request = resolve(draft, self.values, self.values.outputs / "clips" / job_id)
        self.jobs.add(job_id, "local", request)
        return job_id

    def job(self, job_id: str) -> Job:
        job = self.jobs.get(job_id)
        assert job is not None
        return job

    def in_step(self, job_id: str) -> str:
        """Wait for its second step; the name of its node."""
        until(lambda: self.job(job_id).progress.stage == "denoise" and self.job(job_id).progress.step >= 2, "no step")
        return self.job(job_id).worker.partition("/")[0]

    def wait(self, job_id: str) -> Job:
        return until(lambda: None if self.job(job_id).active else self.job(job_id), "the job does not end")

    def actor(self, node: str) -> int:
        return named(below(self.nodes[node].pid), "ray::NodeWorker")

    def close(self) -> None:
        for process in [*self.nodes.values(), self.page]:
            if process is not None:
                send(below(process.pid), signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    send(below(process.pid), signal.SIGKILL)


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


SMALL = {"frames": 17, "size": "256x256"}


def reference(values) -> str:
    """The latents of the same job on one machine."""
    folder = values.outputs / "reference"
    request = resolve(Draft({"image": str(PICTURE), "prompt": "pan left"}, seed=1, **SMALL), values, folder)
    worker = Worker(values)
    try:
        return worker.generate(request, folder, lambda progress: None, lambda: False).latents_sha256
    finally:
        worker.stop()


def nothing(town, job, node):
    return "nothing"


def child(town, job, node):
    actor = town.actor(node)
    send([named(below(actor)[1:], "spawn_main")], signal.SIGKILL)
    return "the worker's child"


def actor(town, job, node):
    send([town.actor(node)], signal.SIGKILL)
    return "the actor"


def actor_twice(town, job, node):
    send([town.actor(node)], signal.SIGKILL)
    until(lambda: town.job(job).lost, "not put back")
    send([town.actor(town.in_step(job))], signal.SIGKILL)
    return "the actor, and the next one"


def machine(town, job, node):
    send(below(town.nodes[node].pid), signal.SIGKILL)
    town.nodes[node].wait()
    town.ended.append(node)
    return "a whole node"


def slow(town, job, node):
    pids = below(town.actor(node))
    send(pids, signal.SIGSTOP)
    time.sleep(10)
    send(pids, signal.SIGCONT)
    return "nothing: the node stood still for 10 s"


def frozen(town, job, node):
    pids = below(town.actor(node))
    send(pids, signal.SIGSTOP)
    until(lambda: town.job(job).lost, "not put back")
    send(pids, signal.SIGCONT)
    return "nothing: the node stood still for longer than a lease (30 s)"


def dispatcher(town, job, node):
    send([named(below(town.page.pid), "wan_ui.cluster.dispatcher")], signal.SIGKILL)
    return "the dispatcher"


def cancel(town, job, node):
    town.jobs.cancel(job)
    return "nothing: it was cancelled"


def page(town, job, node):
    send(below(town.page.pid), signal.SIGKILL)
    town.page.wait()
    town.start_page()
    return "the page with its head"


# name: (what, how the job must end, whether it was put back in line)
CASES = {
    "nothing": (nothing, "done", False),
    "child": (child, "failed", False),
    "actor": (actor, "done", True),
    "actor_twice": (actor_twice, "failed", True),
    "slow": (slow, "done", False),
    "frozen": (frozen, "done", True),
    "cancel": (cancel, "cancelled", False),
    "dispatcher": (dispatcher, "done", True),
    "machine": (machine, "done", True),
    "page": (page, "interrupted", False),
    "after": (nothing, "done", False),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    wanted, wrong = parser.parse_args().only, 0
    with tempfile.TemporaryDirectory(prefix="wan-ui-kills-") as folder:
        town = Town(Path(folder))
        right = reference(town.values)
        print("| killed in the second step | the job | put back | seconds to its end | latents | says |")
        print("|---|---|---|---|---|---|", flush=True)
        try:
            town.start_page()
            for name in ("one", "two"):
                town.start_node(name)
                town.joined(name)
            for case in wanted:
                kill, state, back = CASES[case]
                job_id = town.submit(1)
                node = town.in_step(job_id)
                began = time.monotonic()
                words = kill(town, job_id, node)
                job = town.wait(job_id)
                took = time.monotonic() - began
                same = job.result.latents_sha256 == right if job.state == "done" else None
                fine = (job.state, bool(job.lost), same in (None, True)) == (state, back, True)
                wrong += not fine
                latents = {True: "the same", False: "OTHERS", None: ""}[same]
                says = (job.error or job.lost).replace("|", "/").replace("\n", " ")
                print(
                    f"| {words} | {job.state}{'' if fine else ' (WRONG)'} | {'once' if job.lost else ''} | {took:.0f} "
                    f"| {latents} | {says} |", flush=True,
                )  # fmt: skip
                for name in town.ended:
                    town.start_node(name)  # a node that joins later
                    before = town.log("page").count(f"{name}/0 at ")
                    town.joined(name, before + 1)
                town.ended.clear()
        finally:
            town.close()
            for name in ("page", "one", "two"):
                if wrong:
                    print(f"--- {name}\n{town.log(name)[-3000:]}", file=sys.stderr)
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
