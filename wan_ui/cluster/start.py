"""Ray's own processes: the head on the page's machine, a node on another, who may join, and on which address.

They are started with Ray's token authentication, without its dashboard and without statistics that call home, on a
private address. They are children of whoever starts them and end with it.
"""

import ipaddress
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from wan_ui.cluster import labels
from wan_ui.cluster.versions import RAY_MISSING, ray_version
from wan_ui.errors import UserError
from wan_ui.machine.cpus import allowed_cpus
from wan_ui.queue.local import Place
from wan_ui.settings import ROOT, Settings, child_environment, ray_token

PORT = 6379  # of a head, as Ray's own
REACH = 5.0  # seconds in which a head must take a connection
START = 120.0  # seconds in which Ray must have started
STORE = 256 * 2**20  # bytes of shared memory for clips on their way; larger ones go by way of the disk


def check_installed() -> None:
    if not ray_version():
        raise UserError(f"ray: {RAY_MISSING}")


def split(address: str) -> tuple[str, int]:
    """ "10.0.0.2:6379" -> ("10.0.0.2", 6379)"""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def resolved(host: str) -> str:
    """Its address. Raises UserError for a name that is not known, and for an address that all the world can reach."""
    try:
        address = str(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])
    except OSError as error:
        raise UserError(f"ray: the host {host!r} is not known ({error.strerror or error})") from None
    if not ipaddress.ip_address(address).is_private:
        raise UserError(
            f"ray: {address} is not a private address. Who reaches Ray runs programs here: put the machines into one "
            "private network, and give that address as WAN_UI_RAY=HOST:PORT"
        )
    return address


def towards(address: str) -> str:
    """This machine's address on the way to another one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, PORT))
        except OSError:
            return "127.0.0.1"  # no network at all
        return str(probe.getsockname()[0])


def is_own(address: str) -> bool:
    """Whether it is one of this machine."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def reached(address: str, port: int) -> str:
    """ "" when somebody listens there, else why not."""
    try:
        with socket.create_connection((address, port), REACH):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def head_address(wanted: str) -> tuple[str, int]:
    """Of WAN_UI_RAY. Raises UserError."""
    if wanted == "auto":
        return resolved(towards("10.255.255.255")), PORT
    host, port = split(wanted)
    return resolved(host), port


# ---------------------------------------------------------------- who may join


def make_token() -> Path:
    """The file of the head's token, made where there is none. Raises UserError."""
    path, given = ray_token()
    if not given and not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(secrets.token_hex(32))
        except OSError as error:
            words = f"ray: the token cannot be stored in {path} ({error.strerror}); set RAY_AUTH_TOKEN"
            raise UserError(words) from None
    return path


def check_token() -> None:
    path, given = ray_token()
    if not given and not path.is_file():
        raise UserError(
            f"ray: there is no token. Copy the file {path} from the machine of the page to here, or set RAY_AUTH_TOKEN"
        )


# ---------------------------------------------------------------- processes


def environment(values: Settings) -> dict[str, str]:
    """Of all that starts or uses Ray here."""
    return child_environment(
        {
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_enable_worker_prestart": "0",
            # A node that is silent is given up after 5 s and not after 30.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "5",
            # A node whose head is gone ends, and joins the next one, after 10 s and not after 60.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
            # Ray would have a worker use one CPU.
            "OMP_NUM_THREADS": str(values.threads or allowed_cpus()),
            "WAN_UI_THREADS": str(values.threads),
            "PYTHONPATH": str(ROOT),
        }
    )


class RayProcess:
    """`ray start` with these arguments, until `stop`."""

    def __init__(self, arguments: list[str], values: Settings, variables: dict[str, str] | None = None):
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wan_ui.cluster.raylet", *arguments, "--block"],
            stdin=subprocess.PIPE, stdout=self.errors, stderr=subprocess.STDOUT, cwd=ROOT,
            env=environment(values) | (variables or {}), start_new_session=True,
        )  # fmt: skip

    def alive(self) -> bool:
        return self.process.poll() is None

    def started(self) -> bool:
        return b"Ray runtime started" in self._read()

    def _read(self) -> bytes:
        self.errors.seek(0)
        return self.errors.read()

    def said(self) -> str:
        """The last of what it has said, in one line: why it has ended."""
        lines = [line.strip() for line in self._read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line or "ismatch" in line or "nable to" in line]
        return (errors or lines or [f"exit code {self.process.poll()}"])[-1][:500]

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_head(address: str, port: int, values: Settings) -> RayProcess:
    """A head that runs no jobs itself: this machine's workers are the page's own children. Raises UserError."""
    make_token()
    process = RayProcess(
        [
            "--head", f"--node-ip-address={address}", f"--port={port}", "--include-dashboard=false", "--no-monitor",
            *_common(labels.page_labels()), "--num-gpus=0", "--num-cpus=0",
        ],
        values,
    )  # fmt: skip
    end = time.monotonic() + START
    while reached(address, port):
        if not process.alive() or time.monotonic() > end:
            words = process.said()
            process.stop()
            raise UserError(f"ray: the head could not be started at {address}:{port}: {words}")
        time.sleep(0.2)
    return process


def start_node(
    head: str, said: dict[str, str], workers: int, gpus: int, values: Settings, places: Sequence[Place] = ()
) -> RayProcess:
    """This machine joins the head at HOST:PORT. gpus: of all workers together; which they are say their places."""
    host, _ = split(head)
    seen = [place.environment().get("CUDA_VISIBLE_DEVICES") for place in places]
    visible = {} if None in seen or not seen else {"CUDA_VISIBLE_DEVICES": ",".join(filter(None, seen))}
    return RayProcess(
        [
            f"--address={head}", f"--node-ip-address={towards(host)}", *_common(said), f"--num-gpus={gpus}",
            "--num-cpus=0", "--resources", json.dumps({labels.RESOURCE: workers} if workers else {}),
        ],
        values,
        visible,
    )  # fmt: skip


def _common(said: dict[str, str]) -> list[str]:
    return [
        "--disable-usage-stats", "--include-log-monitor=false", f"--object-store-memory={STORE}", "--min-worker-port=0",
        "--max-worker-port=0",
        "--labels", ",".join(f"{key}={value}" for key, value in said.items()),
    ]  # fmt: skip
