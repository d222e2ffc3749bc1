"""The real engine in a worker whose memory ends: `tight` in the prompt, from the first step of denoise on."""

import resource
from pathlib import Path

from wan_ui.engines import create
from wan_ui.request import Progress


def create_engine(name: str):
    engine, chosen = create.create_engine(name)
    generate = engine.generate

    def tightly(request, report, show=None):
        def watched(progress: Progress) -> None:
            if progress.stage == "denoise" and "tight" in request.sampling.prompt:
                taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (taken + 2**20, resource.RLIM_INFINITY))
            report(progress)

        try:
            return generate(request, watched, show)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    engine.generate = tightly
    return engine, chosen
