"""The text encoder and the VAE are built with the sizes of their files.

Symptom: loading Wan-Tiny fails with KeyError 'blocks.2.norm1.weight' or "size mismatch for
encoder.conv1.weight", after 11 GB were allocated for a text encoder whose file has 1 MB.

Mechanism: umt5_xxl() and _video_vae() hold the sizes of the released models (24 blocks of 4096; base 96,
2 residual blocks) and take no others from the configuration. Here both read them off the tensors of the
file that is about to be loaded. For the released files that gives upstream's own numbers.

Remove when: upstream reads these sizes from the model's configuration.
"""

import sys
from pathlib import Path

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "embedded_sizes"
T5 = "lightx2v.models.input_encoders.hf.wan.t5.model:umt5_xxl"
VAE = "lightx2v.models.video_encoders.hf.wan.vae:_video_vae"


def applies(facts, scheme) -> tuple[bool, str]:
    if facts.embedded:
        return True, "the embedded model is smaller than the released ones"
    return False, "the released sizes are upstream's own"


def vae_sizes(path: Path) -> dict:
    """Arguments of _video_vae for a Wan2.1 VAE file."""
    from wan_ui.files.sizes import vae_layout
    from wan_ui.files.vae_file import read_vae

    config, _ = vae_layout(path, read_vae(path))
    return {
        "dim": config["base_dim"],
        "dim_mult": config["dim_mult"],
        "num_res_blocks": config["num_res_blocks"],
        "temperal_downsample": config["temperal_downsample"],
    }


def apply(_runner) -> None:
    place, name = owner(T5)
    upstream_t5 = getattr(place, name)

    def umt5(**kwargs):
        from wan_ui.files.sizes import t5_sizes
        from wan_ui.files.text_file import read_text

        path = Path(kwargs["lazy_load_path"])
        return upstream_t5(**{**t5_sizes(path, read_text(path)), **kwargs})

    place, name = owner(VAE)
    upstream_vae = getattr(place, name)

    def video_vae(pretrained_path=None, **kwargs):
        return upstream_vae(pretrained_path=pretrained_path, **vae_sizes(Path(pretrained_path)), **kwargs)

    replace(NAME, T5, umt5)
    replace(NAME, VAE, video_vae)


def verify(_runner) -> str:
    # The runner constructs these two; each calls the function of the module that it was defined in.
    runner = owner("lightx2v.models.runners.wan.wan_runner:T5EncoderModel")[0]
    for consumer, name in ((runner.T5EncoderModel, "umt5_xxl"), (runner.WanVAE, "_video_vae")):
        function = getattr(sys.modules[consumer.__module__], name)
        assert is_ours(function, NAME), f"{consumer.__name__} calls upstream's {name}"
    return "text encoder and VAE are built by it"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={
        T5: ("kwargs",),
        VAE: (
            "pretrained_path", "z_dim", "device", "cpu_offload", "dtype", "load_from_rank0", "pruning_rate",
            "dummy_model", "kwargs",
        ),
    },
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)  # fmt: skip
