"""`/healthz` and `/metrics`: whether page, queue and workers are well, and figures of them for Prometheus.

Anybody may ask whether it is well, under any name: a probe of Docker or Kubernetes has no other. Details and figures
are for this machine, and for whoever signs in with WAN_UI_AUTH (HTTP Basic).
"""

import base64
import hmac
import math
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response

from wan_ui.errors import UserError
from wan_ui.machine.hardware import GIB
from wan_ui.machine.memory import resident
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.settings import Settings
from wan_ui.ui.pace import Pace
from wan_ui.ui.visitor import from_here, group, visitor

ADDRESSES = ("/healthz", "/metrics")


async def answer(path: str, scope: dict, settings: Settings, page: str, logins: Pace) -> Response:
    """page: how it is. logins: how often an address may try."""
    headers, trusted = Headers(scope=scope), from_here(scope)
    if not trusted and settings.auth and "authorization" in headers:
        asker = group(visitor(scope, settings)[1])
        if wait := logins.take(asker):
            return PlainTextResponse(too_many_logins(wait), 429, {"retry-after": str(math.ceil(wait))})
        trusted = signed_in(headers, settings)
        if trusted:
            logins.forget(asker)
    if path == "/healthz":
        found = await run_in_threadpool(health, page)
        status = 200 if found["status"] == "ok" else 503
        return JSONResponse(found if trusted else {"status": found["status"]}, status, {"cache-control": "no-store"})
    if not trusted:
        words = "Figures are for this machine, and for who signs in with WAN_UI_AUTH."
        return PlainTextResponse(words, 401, {"www-authenticate": "Basic"} if settings.auth else {})
    return Response(await run_in_threadpool(metrics), media_type=CONTENT_TYPE_LATEST)


def signed_in(headers: Headers, settings: Settings) -> bool:
    kind, _, given = headers.get("authorization", "").partition(" ")
    if not settings.auth or kind.lower() != "basic":
        return False
    try:
        sent = base64.b64decode(given, validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(sent, settings.auth.encode())


def too_many_logins(wait: float) -> str:
    return f"Too many wrong logins from your address; try again in {math.ceil(wait)} s."


def health(page: str = "ok") -> dict[str, Any]:
    """status: ok | starting | failing; of what fails the words. page: the same of the page alone."""
    found: dict[str, Any] = {"status": "ok", "page": page}
    try:
        counts = PIPELINE.jobs.counts()
        found["queue"] = {"status": "ok", "waiting": counts.get("queued", 0), "running": counts.get("running", 0)}
    except UserError as error:
        found["queue"] = {"status": str(error)}
    runners = PIPELINE.pool.runners
    found["workers"] = [
        {"name": row.name, "state": row.state, "model": row.model, "scheme": row.scheme, "job": row.job}
        for row in PIPELINE.pool.rows()
    ]
    # Without any, as on a page whose jobs other machines run, there is nothing that could be wrong with them.
    works = not runners or any(runner.thread is not None and runner.thread.is_alive() for runner in runners.values())
    if found["queue"]["status"] != "ok" or not works or page not in ("ok", "starting"):
        found["status"] = "failing"
    elif page == "starting":
        found["status"] = "starting"
    return found


def metrics() -> bytes:
    registry = CollectorRegistry()
    registry.register(_Pool())
    return generate_latest(registry)


class _Pool(Collector):
    """What is measured at the moment in which Prometheus asks; sums are those since the app has started."""

    def collect(self) -> Iterator[Metric]:
        counts = PIPELINE.jobs.counts()
        jobs = GaugeMetricFamily("wan_ui_jobs", "Jobs in the table, by state", labels=["state"])
        for state, count in counts.items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily("wan_ui_queue_length", "Jobs that wait", value=counts.get("queued", 0))
        tally = PIPELINE.pool.line.tally
        ended = CounterMetricFamily("wan_ui_jobs_ended", "Jobs that have ended, by state", labels=["state"])
        for state, count in tally.ended.items():
            ended.add_metric([state], count)
        yield ended
        stages = SummaryMetricFamily("wan_ui_stage_seconds", "Seconds of finished clips, by stage", labels=["stage"])
        for stage, (count, seconds) in tally.stages.items():
            stages.add_metric([stage], count, seconds)
        yield stages
        yield GaugeMetricFamily("wan_ui_page_memory_bytes", "Memory of the page's process", value=resident() * GIB)
        rows = PIPELINE.pool.rows()
        states = GaugeMetricFamily("wan_ui_worker_state", "1: its state", labels=["worker", "state", "model"])
        memory = GaugeMetricFamily("wan_ui_worker_memory_bytes", "Host memory of a worker", labels=["worker"])
        gpu = GaugeMetricFamily("wan_ui_worker_gpu_memory_bytes", "Used memory of its GPU", labels=["worker"])
        heat = GaugeMetricFamily("wan_ui_worker_gpu_celsius", "Temperature of its GPU", labels=["worker"])
        crashes = CounterMetricFamily("wan_ui_worker_crashes", "Times that a worker died in a job", labels=["worker"])
        for row in rows:
            states.add_metric([row.name, row.state, row.model], 1)
            memory.add_metric([row.name], row.memory * GIB)
            crashes.add_metric([row.name], row.crashes)
            if row.gpu_total:
                gpu.add_metric([row.name], row.gpu_used * GIB)
            if row.celsius is not None:
                heat.add_metric([row.name], row.celsius)
        yield from (states, memory, gpu, heat, crashes)
