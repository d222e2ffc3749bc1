"""Fixed pictures, prompts and seeds against stored clips: SSIM per scheme.

Catches what no unit test sees: a picture that has become wrong. The stored clips were made in bf16 by
`python -m tests.golden.test_golden` (look at them before committing new ones). The thresholds leave
room for another processor's rounding (bf16 here: 1.00) and for the scheme (Q4_0: 0.97), not for a visible change.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from wan_ui import muxer
from wan_ui.intake import Draft
from wan_ui.pipeline import Pipeline
from wan_ui.settings import ROOT, Settings

FOLDER = Path(__file__).parent
EXAMPLES = ROOT / "assets" / "examples"
CLIPS = {
    "zoom-sunset": Draft(image=str(EXAMPLES / "cat.jpg"), prompt="slowly zoom in, sunset light", seed=1, frames=17),
    "pan-left": Draft(image=str(EXAMPLES / "astronaut.jpg"), prompt="the camera pans left", seed=2, frames=17),
    "unknown": Draft(image=str(EXAMPLES / "coffee.jpg"), prompt="xyzzy plugh", seed=3, frames=17, size="320x192"),
}
THRESHOLDS = {"bf16": 0.95, "gguf-Q8_0": 0.95, "fp8": 0.94, "gguf-Q5_0": 0.94, "gguf-Q4_0": 0.92}


def render(pipeline: Pipeline, draft: Draft) -> np.ndarray:
    """The frames of the finished MP4, by way of the real worker."""
    job = pipeline.wait(pipeline.submit(draft))
    assert job.state == "done", job.error
    return muxer.read_frames(pipeline.clip(job))[0]


def ssim(frames: np.ndarray, golden: np.ndarray) -> float:
    """Mean over the frames, of uint8 (T, H, W, 3)."""
    return float(np.mean([structural_similarity(a, b, channel_axis=-1) for a, b in zip(frames, golden, strict=True)]))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    if not list((ROOT / "assets" / "wan-tiny").glob("HighNoise/*.gguf")):
        pytest.skip("assets/wan-tiny holds no weights")
    outputs = tmp_path_factory.mktemp("golden")
    pipeline = Pipeline().open(Settings(outputs=outputs, cache=ROOT / "build" / "test-cache"), warm=False)
    yield pipeline
    pipeline.close()


@pytest.mark.parametrize("name", CLIPS)
def test_bf16_renders_the_stored_clip(pipeline, name):
    golden, _ = muxer.read_frames(FOLDER / f"{name}.mp4")
    assert ssim(render(pipeline, CLIPS[name]), golden) > THRESHOLDS["bf16"]


@pytest.mark.parametrize("scheme", [scheme for scheme in THRESHOLDS if scheme != "bf16"])
def test_every_scheme_renders_the_stored_clip(pipeline, scheme):
    golden, _ = muxer.read_frames(FOLDER / "zoom-sunset.mp4")
    assert ssim(render(pipeline, replace(CLIPS["zoom-sunset"], scheme=scheme)), golden) > THRESHOLDS[scheme]


def test_the_measure_tells_a_wrong_clip(pipeline):
    """The comparison itself: another motion, a colour cast and a frozen first frame all fall through."""
    golden, _ = muxer.read_frames(FOLDER / "pan-left.mp4")
    tinted = (golden * np.array([1.0, 0.6, 0.6])).astype(np.uint8)
    for wrong in (golden[::-1], tinted, np.repeat(golden[:1], len(golden), 0)):
        assert ssim(wrong, golden) < THRESHOLDS["bf16"]


if __name__ == "__main__":
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as outputs:
        maker = Pipeline().open(Settings(outputs=Path(outputs)), warm=False)
        for name, draft in CLIPS.items():
            job = maker.wait(maker.submit(draft))
            shutil.copyfile(maker.clip(job), FOLDER / f"{name}.mp4")
        maker.close()
