"""Fixed pictures, prompts and seeds against the stored clips of this folder: what `compare --golden` does.

Catches what no unit test sees: a picture that has become wrong. The stored clips were made in bf16 by
`python -m wan_ui compare --golden --update` (look at them before committing new ones). golden.json has the
thresholds: room for another processor's rounding (bf16 here: SSIM 1.00) and for the scheme (Q4_0: 0.97).
"""

import numpy as np
import pytest

from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.reports import golden
from wan_ui.settings import ROOT, Settings

GOLDEN = golden.load_golden(golden.OWN)
# One of each kind of scheme: that all of them are near is tested stage by stage, in tests/engines/test_wan_tiny.py.
SCHEMES = ("bf16", "fp8", "gguf-Q4_0")
CASES = [(clip["name"], scheme) for scheme in SCHEMES for clip in GOLDEN.clips if scheme in GOLDEN.schemes_of(clip)]


@pytest.fixture(scope="module")
def pipeline():
    if not list((ROOT / "assets" / "wan-tiny").glob("HighNoise/*.gguf")):
        pytest.skip("assets/wan-tiny holds no weights")
    with golden.own_pipeline(Settings(cache=ROOT / "build" / "test-cache", threads=1)) as pipeline:
        yield pipeline


@pytest.mark.parametrize("name, scheme", CASES)
def test_every_kind_of_scheme_renders_the_stored_clip(pipeline, name, scheme):
    clip = next(clip for clip in GOLDEN.clips if clip["name"] == name)
    outcome = golden.judge(GOLDEN, clip, scheme, pipeline)
    assert outcome.passed, outcome
    assert outcome.seconds > 0


def test_the_measure_tells_a_wrong_clip():
    """The comparison itself: another motion, a colour cast, a frozen first frame and a shift of one pixel fail."""
    right, _ = muxer.read_frames(golden.OWN / "pan-left.mp4")
    tinted = (right * np.array([1.0, 0.9, 0.9])).astype(np.uint8)
    still = np.repeat(right[:1], len(right), 0)
    for wrong in (right[::-1], tinted, still, np.roll(right, 1, axis=2), right[:-1]):
        outcome = golden.verdict(wrong, right, GOLDEN.thresholds["bf16"])
        assert not outcome.passed and outcome.why
    assert golden.verdict(right, right, GOLDEN.thresholds["bf16"]).passed


def test_a_folder_without_goldens_says_how_to_make_them(tmp_path):
    with pytest.raises(UserError, match=r"holds no golden\.json; --update"):
        golden.load_golden(tmp_path)
    (tmp_path / "golden.json").write_text('{"model": "wan-tiny"}')
    with pytest.raises(UserError, match="is damaged"):
        golden.load_golden(tmp_path)


def test_a_scheme_without_thresholds_is_named():
    with pytest.raises(UserError, match="no thresholds for nvfp4"):
        golden.check(GOLDEN, None, ("nvfp4",))
