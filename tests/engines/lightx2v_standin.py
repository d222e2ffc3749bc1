"""A small LightX2V: the seams of wan_ui.engines.lightx2v_seams, with arithmetic that is done in a moment.

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

        def to_cuda(self, non_blocking=False):
            calls.append("to_cuda")

        def load_state_dict(self, destination, block_index, adapter_block_index=None):
            self.weight = destination[self.weight_name.replace("*", str(block_index))]

    class MMWeight(MMWeightTemplate):
        def apply(self, input_tensor):
            return input_tensor @ self.weight

    class MMWeightGGUFTemplate(MMWeight):
        def load(self):
            self.pin_weight = self.pin_bias = None

        def get_weight(self, tensor, dtype):
            return tensor.to(dtype)

    class MMWeightQuantTemplate(MMWeight):
        def load(self):
            self.weight_scale = self.infer_dtype = self.pin_weight = self.pin_bias = None

    class Held:
        """A weight with a copy in host memory."""

        def load(self):
            self.weight = self.bias = self.pin_weight = self.pin_bias = self.eps = None

        def _get_actual_weight(self):
            return self.weight

        def _get_actual_bias(self):
            return self.bias

    class AttnWeightTemplate:
        def apply(self, input_tensor):
            raise AssertionError("the blocks here have none")

    class TAEHV:
        def decode_video(self, x, parallel, show_progress_bar):
            raise AssertionError("there are no files of a small decoder here")

    class DefaultTensor:
        def __init__(self, tensor_name):
            self.tensor_name, self.tensor = tensor_name, None

        def to_cuda(self):
            self.tensor = self.pin_tensor

    class Group:
        def __init__(self, leaves):
            self._modules, self._parameters = leaves, {}

    class WanTransformerInfer:
        def prepare(self):
            self.infer_func = None
            self.num_heads = self.head_dim = self.cos_sin = None
            self.self_attn_cu_seqlens_qkv = self.cross_attn_cu_seqlens_q = None

        def pre_process(self, modulation, embed0):
            return (modulation + embed0).chunk(6, dim=1)

        def infer(self, blocks, pre_infer_out):
            return self.infer_main_blocks(blocks, pre_infer_out)

        def infer_main_blocks(self, blocks, pre_infer_out):
            hidden = pre_infer_out.x
            for self.block_idx, block in enumerate(blocks):
                hidden = self.run_block(self.block_idx, block, hidden, None)
            return hidden

        def run_block(self, block_idx, block, *args):
            return self.infer_block(block, *args)

        def infer_block(self, block, x, pre_infer_out):
            return x + block.apply(x)

    class UlyssesAttnWeight:
        def apply_new(
            self, q, k, v, aux_q, aux_k, aux_v, attention_module, seq_p_group, prepost_backend, a2a_backend,
            quant_scheme, tensor_fusion, head_parallel, aux_first, attention_kwargs,
        ):  # fmt: skip
            raise AssertionError("there is no group here")

    class WanOffloadTransformerInfer(WanTransformerInfer):
        def start(self):
            self.offload_manager = WeightAsyncStreamManager()

    class WeightAsyncStreamManager:
        def __init__(self):
            self.need_init_first_buffer = True

    class WanModel:
        def __init__(self, seed: int):
            generator = torch.Generator().manual_seed(seed)
            self.blocks = [MMWeight(f"blocks.{k}.self_attn.o.weight", generator) for k in range(BLOCKS)]
            self.pre_weight, self.pre_infer = Group({}), None
            self.transformer_weights = Group({str(k): block for k, block in enumerate(self.blocks)})
            self.transformer_infer = WanTransformerInfer()
            self.inward = torch.randn(36, WIDTH, generator=generator) / 6
            self.outward = torch.randn(WIDTH, 16, generator=generator) / 16
            self.on_device = False

        def set_scheduler(self, scheduler):
            self.scheduler = scheduler

        def to_cpu(self):
            self.on_device = False

        def to_cuda(self):
            self.on_device = True

        def _infer_cond_uncond(self, inputs, infer_condition=True):
            return self.half(inputs, infer_condition)

        def _seq_parallel_pre_process(self, pre_infer_out):
            raise AssertionError("there is no group here")

        def _seq_parallel_post_process(self, x):
            raise AssertionError("there is no group here")

        def infer(self, inputs):
            scheduler = self.scheduler
            scheduler.noise_pred = self.half(inputs, True)
            if scheduler.config["enable_cfg"]:
                away = self.half(inputs, False)
                scheduler.noise_pred = away + scheduler.sample_guide_scale * (scheduler.noise_pred - away)

        def half(self, inputs, infer_condition):
            scheduler = self.scheduler
            scheduler.infer_condition = infer_condition
            condition = inputs["image_encoder_output"]["vae_encoder_out"]
            latents = torch.cat([scheduler.latents, condition]).float()
            hidden = latents.flatten(1).T @ self.inward
            hidden = hidden + scheduler.timestep_input.float().mean() / 1000
            context = inputs["text_encoder_output"]["context" if infer_condition else "context_null"]
            hidden = hidden + context.float().mean()
            given = types.SimpleNamespace(x=hidden, embed=scheduler.timestep_input.float().reshape(-1))
            hidden = self.transformer_infer.infer(self.blocks, given)
            return (hidden @ self.outward).T.reshape(scheduler.latents.shape)

    class WanS2VTransformerInfer(WanTransformerInfer):
        def infer_s2v_block(self, block, x, pre_infer_out):
            return x + block.apply(x)

    class WanS2VModel(WanModel):
        def __init__(self, seed: int):
            super().__init__(seed)
            self.transformer_infer = WanS2VTransformerInfer()

        def _infer_cond_uncond(self, inputs, infer_condition=True):
            assert self.on_device, "its weights wait in host memory"
            given, latents = inputs["s2v"], self.scheduler.latents
            calls.append(given)
            picture = given["ref_latents"][0].expand_as(latents)
            hidden = torch.cat([latents, picture, given["cond_latents"][0][:4]]).flatten(1).T @ self.inward
            hidden = hidden + given["audio_input"].mean() + inputs["text_encoder_output"]["context"].mean()
            hidden = (hidden + self.scheduler.timestep_input / 1000)[None]
            infer = self.transformer_infer
            for infer.block_idx, block in enumerate(self.blocks):
                hidden = infer.infer_s2v_block(block, hidden, None)
            return (hidden[0] @ self.outward).T.reshape(latents.shape)

    class WanAnimatePreInfer:
        def after_patch_embedding(self, weights, x, pose_latents, face_pixel_values):
            raise AssertionError("the engine has its own")

    class WanAnimateModel(WanModel):
        def __init__(self, seed: int):
            super().__init__(seed)
            self.pre_infer = WanAnimatePreInfer()
            conv = types.SimpleNamespace(apply=lambda latents: latents)
            self.weights = types.SimpleNamespace(pose_patch_embedding=conv)

        def _infer_cond_uncond(self, inputs, infer_condition=True):
            assert self.on_device, "its weights wait in host memory"
            given, latents = inputs["image_encoder_output"], self.scheduler.latents
            calls.append(given)
            x, face = latents[None].clone(), given["face_pixel_values"]
            x, face = self.pre_infer.after_patch_embedding(self.weights, x, given["pose_latents"], face)
            hidden = torch.cat([x[0], given["vae_encoder_out"]]).flatten(1).T @ self.inward
            hidden = hidden + face.mean() + given["clip_encoder_out"].mean() + self.scheduler.timestep_input / 1000
            hidden = hidden + inputs["text_encoder_output"]["context"].mean()
            return (hidden @ self.outward).T.reshape(latents.shape)

    class MultiDistillModelStruct:
        def __init__(self):
            self.model, self.cur_model_index, self.boundary_step_index = [WanModel(1), WanModel(2)], -1, 0

        def set_scheduler(self, shared_scheduler):
            self.scheduler = shared_scheduler
            for model in self.model:
                model.set_scheduler(shared_scheduler)

        def infer(self, inputs):
            index = 0 if self.scheduler.step_index < self.boundary_step_index else 1
            if index != self.cur_model_index:
                if self.cur_model_index >= 0:
                    self.model[self.cur_model_index].to_cpu()
                self.model[index].on_device, self.cur_model_index = True, index
            calls.append(f"expert {index}")
            self.model[index].infer(inputs)

    class WanVAE_:
        def __init__(self):
            self.encoder, self.decoder = torch.nn.Identity(), torch.nn.Identity()

        def clear_cache(self):
            calls.append("clear_cache")

    class WanVAE:
        def __init__(self):
            self.model, self.dtype = WanVAE_(), torch.float32

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

    class T5Encoder:
        def __init__(self):
            self.token_embedding = torch.nn.Identity()

    class T5EncoderModel:
        def __init__(self):
            self.model = T5Encoder()

    class I2VInputInfo:
        def __init__(self):
            self.prompt, self.seed, self.latent_shape = "", 0, None

    class T2VInputInfo(I2VInputInfo):
        pass

    class Wan22MoeDistillRunner:
        def __init__(self, config):
            self.config = {"vae_stride": (4, 8, 8), **config}
            self.scheduler, self.model = None, MultiDistillModelStruct()
            self.vae_encoder = self.vae_decoder = WanVAE()
            self.text_encoders = [T5EncoderModel()]
            self.input_info = None
            self.run_input_encoder = self._run_input_encoder_local_i2v

        def set_config(self, config_modify):
            self.config.update(config_modify)

        def run_text_encoder(self, input_info):
            calls.append(f"text {input_info.prompt}")
            generator = torch.Generator().manual_seed(sum(input_info.prompt.encode()))
            return {"context": torch.randn(1, 8, 16, generator=generator)}

        def get_vae_encoder_output(self, image, height, width, last_frame=None):
            calls.append("image")
            count = 1 + (self.config["target_video_length"] - 1) // 4
            clip = torch.zeros(1, 3, 1 + 4 * (count - 1), 8 * height, 8 * width)
            clip[:, :, 0] = image
            if last_frame is not None:
                clip[:, :, -1] = last_frame
            return torch.cat([torch.ones(4, count, height, width), self.vae_encoder.encode(clip)])

        def get_latent_shape_with_lat_hw(self, height, width):
            return [16, 1 + (self.config["target_video_length"] - 1) // 4, height, width]

        def get_encoder_output_i2v(self, clip, vae, text):
            return {
                "text_encoder_output": text,
                "image_encoder_output": {"clip_encoder_out": clip, "vae_encoder_out": vae},
            }

        def _run_input_encoder_local_i2v(self):
            raise AssertionError("the engine has its own")

        def _run_input_encoder_local_t2v(self):
            raise AssertionError("the engine has its own")

        def run_vae_decoder(self, latents):
            return self.vae_decoder.decode(latents)

        def run_pipeline(self, input_info):
            self.input_info = input_info
            self.inputs, self.gen_video_final = self.run_input_encoder(), None
            scheduler = self.model.scheduler
            scheduler.prepare(input_info.seed, input_info.latent_shape, self.inputs["image_encoder_output"])
            for step in range(scheduler.infer_steps):
                scheduler.step_pre(step_index=step)
                self.model.infer(self.inputs)
                scheduler.step_post()
            self.gen_video = self.run_vae_decoder(scheduler.latents)
            self.end_run()

        def check_stop(self):
            raise AssertionError("there is no group here")

        def end_run(self):
            self.model.scheduler.clear()
            with contextlib.suppress(AttributeError):
                del self.inputs
            self.input_info = None

    class WanS2VRunner(Wan22MoeDistillRunner):
        def __init__(self, config):
            super().__init__(config)
            self.model = WanS2VModel(3)

        def end_run(self):
            return

    class WanAnimateRunner(Wan22MoeDistillRunner):
        def __init__(self, config):
            super().__init__(config)
            self.model = WanAnimateModel(4)

    class WanScheduler:
        def __init__(self, config):
            self.config, self.rope_request_id, self.step_index, self.infer_condition = config, 0, 0, True
            self.infer_steps, self.latents, self.noise_pred = 4, None, None
            self.sample_guide_scale = config["sample_guide_scale"]

        def prepare(self, seed, latent_shape, image_encoder_output=None):
            self.sigmas = self.timesteps = self.latents = None
            raise AssertionError("the engine has its own")

        def step_pre(self, step_index):
            self.timestep_input = self.timesteps[step_index]

        def step_post(self):
            self.latents = self.latents - self.noise_pred

        def clear(self):
            self.latents = self.noise_pred = None

    def set_config(args):
        with open(args.config_json) as file:
            values = json.load(file)
        calls.append(("config", {**values, "model_cls": args.model_cls, "model_path": args.model_path}))
        return values

    def init_runner(config):
        if "refert_num" in config:
            return WanAnimateRunner(config)
        return (WanS2VRunner if "motion_frames" in config else Wan22MoeDistillRunner)(config)

    def update(input_info, data):
        vars(input_info).update(data)

    found: dict[str, types.ModuleType] = {}

    def module(name, **members):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            package = ".".join(parts[:count])
            if package not in found:
                found[package] = types.ModuleType(package)
                found[package].__path__ = []
        vars(found[name]).update(members)

    def classes(name, *members, **named):
        """Classes under upstream's names for them."""
        for cls in members:
            cls.__module__, cls.__qualname__ = name, cls.__name__
        copies = {
            alias: type(alias, (base,), {"__module__": name, "__qualname__": alias}) for alias, base in named.items()
        }
        module(name, **{cls.__name__: cls for cls in members}, **copies)

    module("lightx2v.infer", init_runner=init_runner)
    module("lightx2v.utils.ggml_tensor", dequantize_c=None)
    module("lightx2v.utils.envs", GET_DTYPE=lambda: torch.float32)
    module("lightx2v.utils.set_config", set_config=set_config, set_parallel_config=lambda config: None)
    module(
        "lightx2v.utils.input_info",
        init_empty_input_info=lambda task, support_tasks: I2VInputInfo(),
        update_input_info_from_dict=update,
    )
    module("lightx2v_platform.base.global_var", AI_DEVICE="cpu")
    module("lightx2v.models.networks.base_model", safe_open=None)
    for readers in ("input_encoders.hf.wan.t5.model", "video_encoders.hf.wan.vae", "video_encoders.hf.wan.vae_2_2"):
        module(f"lightx2v.models.{readers}", load_weights=None)
    classes("lightx2v.utils.input_info", I2VInputInfo, T2VInputInfo)
    classes("lightx2v.models.runners.wan.wan_distill_runner", Wan22MoeDistillRunner, MultiDistillModelStruct)
    classes(
        "lightx2v.models.runners.wan.wan_runner",
        Wan22DenseRunner=Wan22MoeDistillRunner,
        WanRunner=Wan22MoeDistillRunner,
    )
    classes("lightx2v.models.networks.wan.model", WanModel)
    classes("lightx2v.models.networks.wan.infer.transformer_infer", WanTransformerInfer)
    classes("lightx2v.models.networks.wan.infer.offload.transformer_infer", WanOffloadTransformerInfer)
    classes("lightx2v.models.runners.wan.wan_s2v_runner", WanS2VRunner)
    classes("lightx2v.models.networks.wan.s2v_model", WanS2VModel)
    classes("lightx2v.models.runners.wan.wan_animate_runner", WanAnimateRunner)
    classes("lightx2v.models.networks.wan.animate_model", WanAnimateModel)
    classes("lightx2v.models.networks.wan.infer.animate.pre_infer", WanAnimatePreInfer)
    classes("lightx2v.models.networks.wan.infer.s2v.transformer_infer", WanS2VTransformerInfer)
    module("lightx2v.models.networks.wan.infer.s2v.causal_audio_encoder", _MODULE_CACHE={})
    classes("lightx2v.common.offload.manager", WeightAsyncStreamManager)
    classes("lightx2v.models.schedulers.wan.scheduler", WanScheduler)
    classes("lightx2v.models.video_encoders.hf.wan.vae", WanVAE, WanVAE_)
    classes("lightx2v.models.video_encoders.hf.wan.vae_2_2", Wan2_2_VAE=WanVAE, WanVAE_=WanVAE_)
    classes("lightx2v.models.input_encoders.hf.wan.t5.model", T5EncoderModel, T5Encoder)
    fp8 = [f"MMWeightWfp8channelAfp8channeldynamic{name}" for name in ("Torchao", "Triton", "Sgl")]
    classes(
        "lightx2v.common.ops.mm.mm_weight",
        *(MMWeightTemplate, MMWeight, MMWeightQuantTemplate, MMWeightGGUFTemplate),
        **dict.fromkeys(fp8, MMWeightQuantTemplate),
    )
    classes("lightx2v.common.ops.norm.rms_norm_weight", RMSWeightTemplate=Held)
    classes("lightx2v.common.ops.norm.layer_norm_weight", LNWeightTemplate=Held)
    classes("lightx2v.common.ops.conv.conv3d", Conv3dWeight=Held)
    classes("lightx2v.common.ops.attn.template", AttnWeightTemplate)
    classes("lightx2v.common.ops.attn.ulysses_attn", UlyssesAttnWeight)
    classes("lightx2v.models.video_encoders.hf.tae", TAEHV)
    classes("lightx2v.common.ops.tensor.tensor", DefaultTensor)
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
