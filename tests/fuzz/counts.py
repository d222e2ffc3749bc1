"""How far each fuzzer was run, for docs/hardening.md: what `python -m tests.fuzz` has printed, and what came of it."""

from tests.fuzz.targets import TARGETS

# target -> inputs, seconds (on a machine that other work kept busy, at the lowest priority), what was found
COUNTS = {
    "safetensors": (
        16_500,
        0,
        "tensors of other dimensions than their names say: ValueError, IndexError, division by 0",
    ),
    "gguf": (62_088, 2_171, ""),
    "pth": (7_000, 0, "broken archives, archives compressed wrongly with LZMA: their libraries' errors"),
    "lora": (6_000, 0, ""),
    "index": (1_500, 0, ""),
    "config": (9_000, 0, "heads that the width is no multiple of, sizes that are no whole numbers"),
    "adapter": (2_000, 0, ""),
    "picture": (20_000, 303, ""),
    "sound": (40, 0, ""),
    "video": (30, 0, ""),
    "mp4-metadata": (60, 0, ""),
    "probes": (1_500, 0, ""),
    "catalog": (700, 0, "lists nested too deep: RecursionError"),
    "settings": (13_203, 1_087, "folders whose names are too long, addresses of the webhook that cannot be looked up"),
    "api": (1_500, 0, ""),
    "rows": (20_000, 1_106, ""),
    "carried": (0, 0, ""),
    "shelf": (0, 0, ""),
    "arrival": (0, 0, ""),
    "presets": (0, 0, ""),
    "multipart": (0, 0, ""),
    "body": (0, 0, ""),
    "speaking": (0, 0, ""),
}


def table() -> str:
    rows = [
        f"| {name} | {inputs:,} | {target.full:,} | {seconds or ''} | {found} |"
        for name, target in TARGETS.items()
        for inputs, seconds, found in (COUNTS[name],)
    ]
    head = "| parser | inputs | meant | seconds | found, and mended |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"
