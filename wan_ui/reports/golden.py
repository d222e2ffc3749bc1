"""Golden clips: fixed pictures, prompts and seeds, rendered again and held against stored results.

A folder holds golden.json (which clips, which schemes, the thresholds of each) and one MP4 per clip. The
repository's own is tests/golden, for Wan-Tiny, its clips made in bf16 on a CPU. For other models a
folder is made on the machine where they run (`compare --golden FOLDER --update`): it then catches what an
upgrade of driver, torch or kernel changes.

SSIM catches a picture that has become another one, PSNR a shift in colour or brightness. The thresholds
leave room for another processor's rounding and for the scheme's weights, not for a visible change.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wan_ui.catalog import Model
from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.place import DATA
from wan_ui.qa.compare import Item, measure
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import Pipeline
from wan_ui.settings import ROOT, Settings

OWN = ROOT / "tests" / "golden"
PICTURES = DATA / "assets" / "examples"
# For a new folder: what the same machine must give again.
AGAIN = {"ssim": 0.95, "psnr": 32.0}
CLIPS = (
    {"name": "zoom-sunset", "image": "cat.jpg", "prompt": "slowly zoom in, sunset light", "seed": 1},
    {"name": "pan-left", "image": "astronaut.jpg", "prompt": "the camera pans left", "seed": 2},
)


@dataclass(frozen=True)
class Outcome:
    """One clip in one scheme. ssim and psnr are over the whole clip; -1 where there is no clip."""

    clip: str
    scheme: str
    passed: bool
    why: str
    ssim: float = -1.0
    psnr: float = -1.0
    worst_frame: int = -1
    seconds: float = 0.0


@dataclass(frozen=True)
class Golden:
    """The contents of golden.json. thresholds: scheme -> {"ssim", "psnr"}."""

    folder: Path
    model: str
    clips: tuple[dict, ...]
    thresholds: dict[str, dict[str, float]]

    def schemes_of(self, clip: dict) -> list[str]:
        return clip.get("schemes") or list(self.thresholds)

    def draft(self, clip: dict, scheme: str, engine: str) -> Draft:
        return Draft(
            {"image": str(PICTURES / clip["image"]), "prompt": clip["prompt"]},
            seed=clip["seed"],
            frames=clip.get("frames"),
            size=clip.get("size", "auto"),
            model=self.model,
            scheme=scheme,
            engine=engine,
        )


def load_golden(folder: Path) -> Golden:
    """Raises UserError where there is none."""
    path = folder / "golden.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Golden(folder, values["model"], tuple(values["clips"]), values["thresholds"])
    except FileNotFoundError:
        raise UserError(f"golden: {folder} holds no golden.json; --update renders a new set into it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"golden: {path} is damaged ({type(error).__name__}: {error})") from None


def start_golden(folder: Path, model: Model, scheme: str) -> Golden:
    """A new set for one model and scheme; the clips are rendered by `update`."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = [{**clip, "frames": min(model.frames)} for clip in CLIPS]
    values = {"model": model.name, "clips": clips, "thresholds": {scheme: AGAIN}}
    (folder / "golden.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return load_golden(folder)


def render(pipeline: Pipeline, draft: Draft) -> tuple[Path, float]:
    """The finished MP4 by way of queue, worker and muxer, and its seconds. Raises UserError."""
    job = pipeline.wait(pipeline.submit(draft))
    return pipeline.made(job), sum(job.result.seconds.values())


def check(
    golden: Golden,
    pipeline: Pipeline,
    schemes: tuple[str, ...] = (),
    engine: str = "",
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Render every clip in every scheme that has thresholds (or in `schemes`), and judge."""
    unknown = [scheme for scheme in schemes if scheme not in golden.thresholds]
    if unknown:
        known = ", ".join(golden.thresholds)
        raise UserError(f"golden: no thresholds for {unknown[0]} in {golden.folder}; it has {known}", field="scheme")
    outcomes = []
    # Scheme by scheme: a change of scheme loads the model again.
    for scheme in schemes or tuple(golden.thresholds):
        for clip in golden.clips:
            if scheme in golden.schemes_of(clip):
                outcomes.append(judge(golden, clip, scheme, pipeline, engine))
                report(outcomes[-1])
    return outcomes


def judge(golden: Golden, clip: dict, scheme: str, pipeline: Pipeline, engine: str = "") -> Outcome:
    stored = golden.folder / f"{clip['name']}.mp4"
    try:
        right = muxer.read_frames(stored)[0]
        path, seconds = render(pipeline, golden.draft(clip, scheme, engine))
        got = muxer.read_frames(path)[0]
    except UserError as error:
        return Outcome(clip["name"], scheme, False, str(error))
    return replace(verdict(got, right, golden.thresholds[scheme], clip["name"], scheme), seconds=round(seconds, 2))


def verdict(got, right, threshold: dict[str, float], clip: str = "", scheme: str = "") -> Outcome:
    """Frames (T, H, W, 3) uint8 against the stored ones."""
    if got.shape != right.shape:
        return Outcome(clip, scheme, False, f"frames of shape {got.shape}, stored {right.shape}")
    (pair,) = measure([Item("stored", right, 1, {}), Item("now", got, 1, {})])
    figures = (("SSIM", pair.ssim_total, threshold["ssim"]), ("PSNR", pair.psnr_total, threshold["psnr"]))
    low = [f"{name} {value:g} is below {least:g}" for name, value, least in figures if value < least]
    words = f"{' and '.join(low)}; worst at frame {pair.worst_frame}" if low else "as stored"
    return Outcome(clip, scheme, not low, words, pair.ssim_total, pair.psnr_total, pair.worst_frame)


def update(golden: Golden, pipeline: Pipeline, engine: str = "") -> list[Path]:
    """Render every clip in the first scheme and store it. Look at them before keeping them."""
    scheme = next(iter(golden.thresholds))
    paths = []
    for clip in golden.clips:
        paths.append(golden.folder / f"{clip['name']}.mp4")
        shutil.copyfile(render(pipeline, golden.draft(clip, scheme, engine))[0], paths[-1])
    return paths


def run(
    settings: Settings,
    folder: Path,
    *,
    schemes: tuple[str, ...] = (),
    engine: str = "",
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> dict:
    """`check` with a worker of its own, in a temporary outputs folder; the result as JSON-able values."""
    golden = load_golden(folder)
    with own_pipeline(settings) as pipeline:
        outcomes = check(golden, pipeline, schemes, engine, report)
    return {
        "model": golden.model,
        "passed": all(outcome.passed for outcome in outcomes),
        "clips": [asdict(outcome) for outcome in outcomes],
    }


@contextlib.contextmanager
def own_pipeline(settings: Settings) -> Iterator[Pipeline]:
    """A queue and a worker apart from any running app's."""
    with tempfile.TemporaryDirectory(prefix="wan-ui-qa-") as folder:
        pipeline = Pipeline().open(replace(settings, outputs=Path(folder)), warm=False)
        try:
            yield pipeline
        finally:
            pipeline.close()
