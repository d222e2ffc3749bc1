"""Which large model a new user is offered, by the memory of the GPU and of the machine."""

from pathlib import Path

import pytest

from wan_ui.catalog import load_catalog
from wan_ui.settings import ROOT, Settings
from wan_ui.ui import first_hint
from wan_ui.ui.models_panel import Offer


def offers(catalog: Path) -> list[Offer]:
    models = load_catalog(catalog).values()
    return [Offer(model, scheme, "8 files missing", False, {}) for model in models for scheme in model.schemes.values()]


# By configs/catalog.toml: A14B in fp8 takes 18.8 GiB with one expert on the GPU, 43.8 in all; in Q6_K 16.0, in Q5_K_M
# 14.8, in Q4_K_M 13.8 of 33.8; the 5B in Q8_0 9.8, in Q4_K_M 8.0.
@pytest.mark.parametrize(
    ("gpu", "host", "wanted"),
    [
        (80, 64, "i2v-a14b fp8"),
        (24, 64, "i2v-a14b fp8"),
        (24, 16, "i2v-a14b gguf-Q6_K-260412"),  # fp8 would take 43.8 of 40
        (15.9, 64, "i2v-a14b gguf-Q5_K_M-260412"),
        (14, 64, "i2v-a14b gguf-Q4_K_M-260412"),
        (14, 16, "ti2v-5b gguf-Q8_0"),
        (12, 32, "ti2v-5b gguf-Q8_0"),
        (8.5, 32, "ti2v-5b gguf-Q4_K_M"),
        (6, 32, None),
        (0, 32, None),
    ],
)
def test_the_large_model_that_fits(gpu, host, wanted):
    found = first_hint.large(offers(ROOT / "configs" / "catalog.toml"), Settings(engine="diffusers"), gpu, host)
    assert (found and f"{found.model.name} {found.scheme.name}") == wanted
