"""A small LightX2V: the seams that wan_ui.engines.lightx2v takes, with arithmetic that is done in a moment.

It keeps upstream's order of calls (run_pipeline: input encoder, scheduler, steps, decoder, end_run), its names and its
habits that have bitten: end_run clears the scheduler, weights wait on the host and are moved for their turn, a failure
leaves everything where it was. tests/lightx2v runs the same engine on the real one, where it is.
"""

import contextlib
import json
import sys
import types

import torch

WIDTH, BLOCKS = 256, 2  # Wan-Tiny's width, so that LoRAs made for it fit


def modules(calls: list) -> dict[str, types.ModuleType]:
    """name -> module, for sys.modules. `calls` notes what upstream was asked for, in order."""

    class MMWeightTemplate:
        def __init__(self, name: str, generator):
            self.weight_name, self.bias = name, None
            self.weight = 0.02 * torch.randn(WIDTH, WIDTH, generator=generator)

        def to_cuda(self):
            calls.append("to_cuda")

        def apply(self, x):
            return x @ self.weight

    class Group:
        def __init__(self, leaves):
            self._modules, self._parameters = leaves, {}

    class Infer:
        def run_block(self, index, block, hidden, *rest):
            return hidden + block.apply(hidden)

    class Expert:
        def __init__(self, seed: int):
            generator = torch.Generator().manual_seed(seed)
            self.blocks = [MMWeightTemplate(f"blocks.{k}.self_attn.o.weight", generator) for k in range(BLOCKS)]
            self.pre_weight = Group({})
            self.transformer_weights = Group({str(k): block for k, block in enumerate(self.blocks)})
            self.transformer_infer = Infer()
            self.inward = torch.randn(36, WIDTH, generator=generator) / 6
            self.outward = torch.randn(WIDTH, 16, generator=generator) / 16
            self.on_device = False

        def to_cpu(self):
            self.on_device = False

        def run(self, scheduler, inputs):
            condition = inputs["image_encoder_output"]["vae_encoder_out"]
            latents = torch.cat([scheduler.latents, condition]).float()
            hidden = latents.flatten(1).T @ self.inward
            hidden = hidden + scheduler.timestep_input.float().mean() / 1000
            hidden = hidden + inputs["text_encoder_output"]["context"].float().mean()
            for k, block in enumerate(self.blocks):
                hidden = self.transformer_infer.run_block(k, block, hidden, None)
            shape = scheduler.latents.shape
            scheduler.noise_pred = (hidden @ self.outward).T.reshape(shape)

    class Experts:
        def __init__(self):
            self.model, self.cur_model_index, self.boundary_step_index = [Expert(1), Expert(2)], -1, 0

        def set_scheduler(self, scheduler):
            self.scheduler = scheduler

        def infer(self, inputs):
            index = 0 if self.scheduler.step_index < self.boundary_step_index else 1
            if index != self.cur_model_index:
                if self.cur_model_index >= 0:
                    self.model[self.cur_model_index].to_cpu()
                self.model[index].on_device, self.cur_model_index = True, index
            calls.append(f"expert {index}")
            self.model[index].run(self.scheduler, inputs)

    class Vae:
        dtype = torch.float32

        def __init__(self):
            self.model = types.SimpleNamespace(encoder=torch.nn.Identity(), decoder=torch.nn.Identity(), caches=0)
            self.model.clear_cache = lambda: calls.append("clear_cache")

        def encode(self, clip):
            """(1, 3, T, H, W) -> (16, t, H / 8, W / 8)"""
            frames = [clip[0, :, k] for k in range(0, clip.shape[2], 4)]
            small = [torch.nn.functional.avg_pool2d(self.model.encoder(frame), 8) for frame in frames]
            return torch.stack(small, 1).repeat(6, 1, 1, 1)[:16]

        def decode(self, latents):
            """(16, t, h, w) -> (1, 3, 4 t - 3, 8 h, 8 w) in -1 .. 1"""
            frames = [self.model.decoder(latents[:3, k]) for k in range(latents.shape[1])]
            large = [frame.repeat_interleave(8, 1).repeat_interleave(8, 2) for frame in frames]
            return torch.stack([large[0], *(frame for frame in large[1:] for _ in range(4))], 1)[None].tanh()

    class Runner:
        def __init__(self, config):
            self.config = {"vae_stride": (4, 8, 8), **config}
            self.model = Experts()
            self.vae_encoder = self.vae_decoder = Vae()
            self.text_encoders = [
                types.SimpleNamespace(model=types.SimpleNamespace(token_embedding=torch.nn.Identity()))
            ]
            self.input_info = None

        def set_config(self, values):
            self.config.update(values)

        def run_text_encoder(self, info):
            calls.append(f"text {info.prompt}")
            generator = torch.Generator().manual_seed(sum(info.prompt.encode()))
            return {"context": torch.randn(1, 8, 16, generator=generator)}

        def get_vae_encoder_output(self, image, height, width):
            calls.append("image")
            count = 1 + (self.config["target_video_length"] - 1) // 4
            clip = torch.zeros(1, 3, 1 + 4 * (count - 1), 8 * height, 8 * width)
            clip[:, :, 0] = image
            return torch.cat([torch.ones(4, count, height, width), self.vae_encoder.encode(clip)])

        def get_latent_shape_with_lat_hw(self, height, width):
            return [16, 1 + (self.config["target_video_length"] - 1) // 4, height, width]

        def get_encoder_output_i2v(self, clip, vae, text):
            return {
                "text_encoder_output": text,
                "image_encoder_output": {"clip_encoder_out": clip, "vae_encoder_out": vae},
            }

        def run_input_encoder(self):
            raise AssertionError("the engine has its own")

        def run_vae_decoder(self, latents):
            return self.vae_decoder.decode(latents)

        def run_pipeline(self, info):
            self.input_info = info
            self.inputs = self.run_input_encoder()
            scheduler = self.model.scheduler
            scheduler.prepare(info.seed, info.latent_shape, self.inputs["image_encoder_output"])
            for step in range(scheduler.infer_steps):
                scheduler.step_pre(step_index=step)
                self.model.infer(self.inputs)
                scheduler.step_post()
            self.gen_video = self.run_vae_decoder(scheduler.latents)
            self.end_run()

        def end_run(self):
            self.model.scheduler.clear()
            with contextlib.suppress(AttributeError):
                del self.inputs
            self.input_info = None

    class WanScheduler:
        def __init__(self, config):
            self.config, self.rope_request_id, self.step_index = config, 0, 0
            self.latents = self.noise_pred = None

        def clear(self):
            self.latents = self.noise_pred = None

    def set_config(arguments):
        with open(arguments.config_json) as file:
            values = json.load(file)
        calls.append(("config", {**values, "model_cls": arguments.model_cls, "model_path": arguments.model_path}))
        return values

    def update(info, values):
        vars(info).update(values)

    found: dict[str, types.ModuleType] = {}

    def module(name, **members):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            package = ".".join(parts[:count])
            if package not in found:
                found[package] = types.ModuleType(package)
                found[package].__path__ = []
        vars(found[name]).update(members)

    module("lightx2v.infer", init_runner=Runner)
    module("lightx2v.utils.ggml_tensor", dequantize_c=None)
    module("lightx2v.utils.envs", GET_DTYPE=lambda: torch.float32)
    module("lightx2v.utils.set_config", set_config=set_config)
    module(
        "lightx2v.utils.input_info",
        init_empty_input_info=lambda task, extra: types.SimpleNamespace(prompt="", seed=0, latent_shape=None),
        update_input_info_from_dict=update,
    )
    module("lightx2v.common.ops.mm.mm_weight", MMWeightTemplate=MMWeightTemplate)
    module("lightx2v.models.schedulers.wan.scheduler", WanScheduler=WanScheduler)
    module("lightx2v_platform.base.global_var", AI_DEVICE="cpu")
    return found


@contextlib.contextmanager
def installed(calls: list):
    """The stand-in under upstream's names; what was there before is there again afterwards."""
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0].startswith("lightx2v")}
    for name in kept:
        del sys.modules[name]
    sys.modules.update(modules(calls))
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0].startswith("lightx2v")]:
            del sys.modules[name]
        sys.modules.update(kept)
