"""What LightX2V itself gives for Wan-Tiny, scheme by scheme: the numbers that tests/engines holds our code to.

`pytest tests/lightx2v/test_upstream_numbers.py --store` writes them again.
"""

import subprocess

import pytest

from tests.engines.test_upstream_numbers import SCHEMES, TRIAL, stored
from wan_ui.patches.record import COMMIT
from wan_ui.qa import reference as references
from wan_ui.qa.blocks import relative_error


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_stored_numbers_are_upstreams(load, lightx2v, model, scheme, request):
    found = references.compute(load(scheme), model, TRIAL)
    path = stored(scheme)
    if request.config.getoption("--store"):
        folder = lightx2v.__path__[0]
        commit = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        path.parent.mkdir(exist_ok=True)
        kept = references.Reference(found.kind, found.trial, found.plan, found.outputs)  # without the blocks
        kept.save(path, f"LightX2V {commit.stdout.strip()}, {scheme}, float32 on a CPU")
    again = references.load_reference(path)
    assert again.source.startswith(f"LightX2V {COMMIT}")
    # fp8: activations are rounded to e4m3, and the last digit of a sum decides, which the number of threads changes.
    step = 0.03 if scheme == "fp8" else 1e-3
    allowed = {"text": 1e-3, "image": 1e-3, "dit high": step, "dit low": step, "decode": 0.01 + step}
    for name, output in again.outputs.items():
        assert relative_error(found.outputs[name], output) < allowed[name], name
