"""The engines import those models of diffusers that they are made of, and nobody else notices."""

import json
import subprocess
import sys

from wan_ui.settings import ROOT

CODE = """
import json, sys
import wan_ui.engines.diffusers, wan_ui.lipsync.musetalk
from wan_ui.engines import wan_classes
loaded = [name for name in sys.modules if name.startswith("diffusers.models.transformers.")]
import diffusers
import diffusers.models.transformers
same = diffusers.WanTransformer3DModel is wan_classes.WanTransformer3DModel
same &= diffusers.AutoencoderKLWan is wan_classes.AutoencoderKLWan
same &= diffusers.AutoencoderKL is wan_ui.lipsync.musetalk.AutoencoderKL
whole = diffusers.models.transformers.FluxTransformer2DModel.__name__
print(json.dumps([loaded, same, whole]))
"""


def test_only_what_is_used_is_imported_and_the_packages_are_whole_for_others():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded, same, whole = json.loads(done.stdout.splitlines()[-1])
    assert 1 <= len(loaded) <= 6 and "diffusers.models.transformers.transformer_wan" in loaded, loaded
    assert same and whole == "FluxTransformer2DModel"
