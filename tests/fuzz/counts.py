"""How far each fuzzer was run, for docs/hardening.md: what `python -m tests.fuzz` has printed, and what came of it."""

from tests.fuzz.targets import TARGETS

# target -> inputs, seconds (on a machine that other work kept busy, at the lowest priority), what was found
COUNTS = {
    "safetensors": (
        200_000,
        719,
        "tensors of other dimensions than their names say: ValueError, IndexError, division by 0",
    ),
    "gguf": (200_000, 93, ""),
    "pth": (200_000, 697, "broken archives, archives compressed wrongly with LZMA: their libraries' errors"),
    "lora": (200_000, 763, ""),
    "index": (20_000, 21, ""),
    "config": (
        20_000,
        27,
        "heads that the width is no multiple of, sizes that are no whole numbers, lists times a number; by "
        "reading: a million layers",
    ),
    "adapter": (20_000, 13, ""),
    "picture": (20_000, 303, ""),
    "sound": (107_996, 1800, ""),  # these three in six processes each, with an old ffmpeg (4.2.2)
    "video": (60_446, 1800, "frames that last for years: filled with copies without an end, 30 s for a first look"),
    "mp4-metadata": (261_590, 1800, ""),
    "probes": (20_000, 58, ""),
    "catalog": (20_000, 50, "lists nested too deep: RecursionError"),
    "settings": (20_000, 40, "folders whose names are too long, addresses of the webhook that cannot be looked up"),
    "api": (20_000, 75, ""),
    "rows": (20_000, 1_106, ""),
    "carried": (20_000, 32, "none by it; by reading: any number of names, each as large as it may be"),
    "shelf": (20_000, 13, ""),
    "arrival": (20_000, 35, "none by it; by reading: names that fit in characters and not in bytes"),
    "presets": (20_000, 32, ""),
    "multipart": (20_000, 23, ""),
    "body": (20_000, 29, ""),
    "speaking": (20_000, 22, ""),
}


def table() -> str:
    rows = [
        f"| {name} | {inputs:,} | {target.full:,} | {seconds or ''} | {found} |"
        for name, target in TARGETS.items()
        for inputs, seconds, found in (COUNTS[name],)
    ]
    head = "| parser | inputs | meant | seconds | found, and mended |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"
