"""The dense TI2V-5B model through the real LightX2V: a random small DIT, step by step against the diffusers engine.

Its VAE has a fixed size upstream (1.4 GB), so a stand-in hands over the image latents of the diffusers
engine; text encoder, GGUF file, timesteps per token, pasted first frame and Euler steps are the real ones.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.engines.random_models import write_5b
from tests.lightx2v.jobs import make_request, quiet
from tests.lightx2v.test_parity import only
from wan_ui import settings as settings_module
from wan_ui.catalog import Scheme, load_catalog


@pytest.fixture
def dense(lightx2v, settings, tmp_path):
    """The model, below the models folder like a download."""
    root = tmp_path / "models" / "local" / "random-5b"
    root.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_5b(root)
    (root / "Wan2.2_VAE.pth").touch()
    settings_module.use(replace(settings, models=tmp_path / "models", lightx2v_compile="off", lightx2v_plain="vae"))
    scheme = Scheme("gguf-Q8_0", "GGUF Q8_0", "gguf", "Q8_0", high="local/random-5b:dit-Q8_0.gguf")
    model = load_catalog(settings.catalog)["ti2v-5b"]
    yield replace(
        model, root="local/random-5b", vae="local/random-5b:vae", t5="", needs_gpu=False, schemes={scheme.name: scheme}
    )
    settings_module.use(settings)


@pytest.fixture
def given_vae(monkeypatch):
    """given_vae(latents, request): what stands for upstream's VAE."""
    from lightx2v.models.runners.wan import wan_runner

    def use(given, request):
        class Vae:
            def __init__(self, **kwargs):
                self.model = SimpleNamespace(
                    encoder=torch.nn.Identity(), decoder=torch.nn.Identity(), clear_cache=lambda: None
                )
                self.dtype = torch.float32

            def encode(self, video):
                if video.shape[2] > 1:  # the clip that the preview's colours are fitted on
                    return torch.randn(48, 2, 16, 16, device=video.device)
                assert video.shape == (1, 3, 1, request.height, request.width)
                return given.to(video.device)

            def decode(self, latents):
                return torch.zeros(1, 3, request.frames, request.height, request.width)

        monkeypatch.setattr(wan_runner, "Wan2_2_VAE", Vae)

    return use


@pytest.mark.parametrize("pictures", [1, 0])
def test_dense_parity(dense, compute, reference, euler_steps, given_vae, tmp_path, pictures):
    """With a picture, and with none, by a model loaded alike."""
    from wan_ui.engines.lightx2v import LightX2VEngine
    from wan_ui.patches import embedded_sizes
    from wan_ui.patches.record import resolve

    request = make_request(tmp_path, dense, "gguf-Q8_0")
    if not pictures:
        request = replace(request, task="text-to-video", inputs={})
    other = reference(dense, "")
    theirs = other.generate(request, quiet)
    their_steps, text = list(euler_steps.values()), only(other.encoded.prompts)
    given_vae(only(other.encoded.images) if pictures else None, request)
    euler_steps.clear()
    if not resolve(embedded_sizes.PATCH):
        embedded_sizes.PATCH.apply(None)  # the random text encoder is small as well
    compute(torch.float32)
    engine = LightX2VEngine()
    engine.load(dense, dense.scheme(""), quiet)
    seen = []
    ours = engine.generate(request, seen.append)
    assert [p.detail for p in seen if p.stage == "denoise"] == ["transformer"] * 4
    torch.testing.assert_close(only(engine.encoded.prompts)[0].cpu(), text, atol=1e-4, rtol=0)
    for mine, theirs_step in zip(euler_steps.values(), their_steps, strict=True):
        # the given frame is pasted in after the step; before that it is not looked at
        torch.testing.assert_close(mine[:, pictures:], theirs_step[:, pictures:], atol=1e-4, rtol=0)
    assert abs(ours.latents - theirs.latents).max() < 1e-4
    again = engine.generate(request, quiet)
    assert (again.latents == ours.latents).all()
    engine.close()
