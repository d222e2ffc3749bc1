"""The engines import those models of diffusers that they are made of, and nobody else notices."""

import json
import os
import subprocess
import sys

from wan_ui.settings import ROOT

CODE = """
import json, sys
import wan_ui.engines.diffusers
import wan_ui.lipsync.musetalk
from wan_ui.engines import wan_classes
loaded = [name for name in sys.modules if name.startswith("diffusers.models.transformers.")]
heavy = [name for name in ("transformers", "scipy", "scipy.stats", "torch._dynamo") if name in sys.modules]
import diffusers
import diffusers.models.transformers
same = diffusers.WanTransformer3DModel is wan_classes.WanTransformer3DModel
same &= diffusers.AutoencoderKLWan is wan_classes.AutoencoderKLWan
same &= diffusers.AutoencoderKL is wan_ui.lipsync.musetalk.AutoencoderKL
whole = diffusers.models.transformers.FluxTransformer2DModel.__name__
scheduler = diffusers.DPMSolverMultistepScheduler(use_beta_sigmas=True)  # its file was given a stand-in for scipy
scheduler.set_timesteps(4)
import torch
compiled = torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item()
from diffusers.loaders.single_file_utils import AutoImageProcessor
reads = AutoImageProcessor.from_pretrained.__name__
print(json.dumps([loaded, heavy, same, whole, len(scheduler.sigmas), compiled, reads]))
"""


def test_only_what_is_used_is_imported_and_the_packages_are_whole_for_others():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded, heavy, same, *others = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    assert 1 <= len(loaded) <= 8 and "diffusers.models.transformers.transformer_wan" in loaded, loaded
    assert same and others == ["FluxTransformer2DModel", 5, 2.0, "from_pretrained"]


PEFT = """
import transformers
from transformers import PreTrainedModel
assert transformers.__version__ >= "5"
from transformers.utils import PushToHubMixin

class PeftModel(PushToHubMixin):
    of: PreTrainedModel | None = None
"""


def test_a_package_that_wants_more_of_transformers_gets_it(tmp_path):
    """peft, which diffusers imports where it is installed."""
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "__init__.py").write_text(PEFT)
    (tmp_path / "peft" / "helpers.py").write_text("def disable_input_dtype_casting(*given): ...")
    (tmp_path / "peft" / "tuners").mkdir()
    (tmp_path / "peft" / "tuners" / "tuners_utils.py").write_text("class BaseTunerLayer: ...")
    (tmp_path / "peft-0.18.0.dist-info").mkdir()
    (tmp_path / "peft-0.18.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.18.0\n")
    code = """
import sys
import wan_ui.engines.diffusers
print(sys.modules["peft"].PeftModel.__mro__[1].__module__, sys.modules["transformers"].PreTrainedModel.__name__)
"""
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.stdout.split() == ["transformers.utils.hub", "PreTrainedModel"], done.stderr[-2000:]
