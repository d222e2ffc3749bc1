"""The seams to LightX2V: each attribute of its objects that the engine writes, each method that it takes or relies on.

LightX2V has no interface for what is done here, and Python lets an attribute be written that nobody reads. So all of
them stand in one list, which is held against upstream's classes at every load, before weights are read: a method must
be there with the parameters that are known, and an attribute must be named by the code of its class. One that was
renamed fails the load by its name, as a patch does. What is put on upstream's objects beside that must not be theirs.

`put` is the only place that writes; tests/engines/test_lightx2v_seams.py looks for others. Callables that are
replaced for everyone, with a reason each, are patches: wan_ui/patches.
"""

import inspect
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

from wan_ui.code_names import names_in
from wan_ui.errors import UserError
from wan_ui.patches.record import COMMIT

Parameters = tuple[str, ...] | None  # of a method; None for an attribute

WAN = "lightx2v.models.networks.wan"
RUN = "lightx2v.models.runners.wan"
S2V = f"{WAN}.infer.s2v"
RUNNERS = (
    f"{RUN}.wan_distill_runner:Wan22MoeDistillRunner",
    f"{RUN}.wan_runner:Wan22DenseRunner",
    f"{RUN}.wan_runner:WanRunner",
    f"{RUN}.wan_s2v_runner:WanS2VRunner",
    f"{RUN}.wan_animate_runner:WanAnimateRunner",
)
EXPERTS = f"{RUN}.wan_distill_runner:MultiDistillModelStruct"
TRANSFORMER = f"{WAN}.model:WanModel"
BLOCKS = f"{WAN}.infer.transformer_infer:WanTransformerInfer"
OFFLOADED_BLOCKS = f"{WAN}.infer.offload.transformer_infer:WanOffloadTransformerInfer"
BUFFERS = "lightx2v.common.offload.manager:WeightAsyncStreamManager"
SCHEDULER = "lightx2v.models.schedulers.wan.scheduler:WanScheduler"
VAE = "lightx2v.models.video_encoders.hf.wan"
VAES, VAE_MODULES = (f"{VAE}.vae:WanVAE", f"{VAE}.vae_2_2:Wan2_2_VAE"), (f"{VAE}.vae:WanVAE_", f"{VAE}.vae_2_2:WanVAE_")
T5 = "lightx2v.models.input_encoders.hf.wan.t5.model"
MM = "lightx2v.common.ops.mm.mm_weight"
LINEAR, QUANTISED = f"{MM}:MMWeightTemplate", f"{MM}:MMWeightQuantTemplate"
LINEAR_CLASSES = (
    "MMWeight",
    "MMWeightWfp8channelAfp8channeldynamicTorchao",
    "MMWeightWfp8channelAfp8channeldynamicTriton",
    "MMWeightWfp8channelAfp8channeldynamicSgl",
)
RMS_NORM = "lightx2v.common.ops.norm.rms_norm_weight:RMSWeightTemplate"
LAYER_NORM = "lightx2v.common.ops.norm.layer_norm_weight:LNWeightTemplate"
CONVOLUTION = "lightx2v.common.ops.conv.conv3d:Conv3dWeight"
ATTENTION = "lightx2v.common.ops.attn.template:AttnWeightTemplate"
ULYSSES = "lightx2v.common.ops.attn.ulysses_attn:UlyssesAttnWeight"
TENSOR = "lightx2v.common.ops.tensor.tensor:DefaultTensor"

RUNNER: dict[str, Parameters] = {
    "run_input_encoder": None,  # replaced; it stands for the next
    "_run_input_encoder_local_i2v": ("self",),
    "_run_input_encoder_local_t2v": ("self",),
    "run_vae_decoder": ("self", "latents"),  # wrapped
    "run_text_encoder": ("self", "input_info"),
    "run_pipeline": ("self", "input_info"),
    "set_config": ("self", "config_modify"),
    "check_stop": ("self",),  # replaced in a group of GPUs, as the two of the transformer that say so
    "end_run": ("self",),  # what is called after a failure only would not be missed before
    "model": None,
    "scheduler": None,
    "input_info": None,
    "gen_video": None,
    "gen_video_final": None,
    "text_encoders": None,
    "vae_encoder": None,
    "vae_decoder": None,
}
# "module:Class", or a module with what is imported from it.
SEAMS: dict[str, dict[str, Parameters]] = {
    "lightx2v.infer": {"init_runner": ("config",)},
    "lightx2v.utils.set_config": {"set_config": ("args",), "set_parallel_config": ("config",)},
    "lightx2v.utils.input_info": {
        "init_empty_input_info": ("task", "support_tasks"),
        "update_input_info_from_dict": ("input_info", "data"),
    },
    "lightx2v.utils.envs": {"GET_DTYPE": ()},
    "lightx2v_platform.base.global_var": {"AI_DEVICE": None},
    "lightx2v.models.networks.base_model": {"safe_open": None},
    **{module: {"load_weights": None} for module in (T5, f"{VAE}.vae", f"{VAE}.vae_2_2")},
    **dict.fromkeys(RUNNERS, RUNNER),
    EXPERTS: {
        "model": None,
        "boundary_step_index": None,
        "cur_model_index": None,
        "set_scheduler": ("self", "shared_scheduler"),
        "infer": ("self", "inputs"),
    },
    TRANSFORMER: {
        "set_scheduler": ("self", "scheduler"),
        "infer": ("self", "inputs"),
        "to_cpu": ("self",),
        "to_cuda": ("self",),
        "pre_infer": None,
        "_infer_cond_uncond": ("self", "inputs", "infer_condition"),
        "transformer_infer": None,
        "_seq_parallel_pre_process": ("self", "pre_infer_out"),
        "_seq_parallel_post_process": ("self", "x"),
        "pre_weight": None,
        "transformer_weights": None,
    },
    BLOCKS: {
        "infer_block": ("self", "block", "x", "pre_infer_out"),
        "infer_main_blocks": ("self", "blocks", "pre_infer_out"),  # of undistilled clips wrapped
        "run_block": ("self", "block_idx", "block", "args"),
        "block_idx": None,
        "infer_func": None,
        "pre_process": ("self", "modulation", "embed0"),
        **dict.fromkeys(("num_heads", "head_dim", "cos_sin", "self_attn_cu_seqlens_qkv", "cross_attn_cu_seqlens_q")),
    },
    f"{WAN}.s2v_model:WanS2VModel": {"_infer_cond_uncond": ("self", "inputs", "infer_condition")},
    f"{S2V}.transformer_infer:WanS2VTransformerInfer": {
        "infer_s2v_block": ("self", "block", "x", "pre_infer_out"),
        "block_idx": None,
    },
    f"{WAN}.animate_model:WanAnimateModel": {"_infer_cond_uncond": ("self", "inputs", "infer_condition")},
    f"{WAN}.infer.animate.pre_infer:WanAnimatePreInfer": {
        "after_patch_embedding": ("self", "weights", "x", "pose_latents", "face_pixel_values"),  # replaced
    },
    f"{S2V}.causal_audio_encoder": {"_MODULE_CACHE": None},
    OFFLOADED_BLOCKS: {"offload_manager": None},
    BUFFERS: {"need_init_first_buffer": None},
    SCHEDULER: {
        "prepare": ("self", "seed", "latent_shape", "image_encoder_output"),
        "step_pre": ("self", "step_index"),
        "step_post": ("self",),
        "clear": ("self",),
        "infer_steps": None,
        "infer_condition": None,
        "step_index": None,
        "sigmas": None,
        "timesteps": None,
        "timestep_input": None,
        "latents": None,
        "noise_pred": None,
        "sample_guide_scale": None,  # whether a step has a second half says `enable_cfg` of the configuration
        "rope_request_id": None,
    },
    **{vae: {"model": None, "dtype": None} for vae in VAES},
    **{module: {"encoder": None, "decoder": None, "clear_cache": ("self",)} for module in VAE_MODULES},
    f"{T5}:T5EncoderModel": {"model": None},
    f"{T5}:T5Encoder": {"token_embedding": None},
    **{
        f"lightx2v.utils.input_info:{task}InputInfo": {"seed": None, "prompt": None, "latent_shape": None}
        for task in ("I2V", "T2V")
    },
    LINEAR: {
        "weight": None,
        "bias": None,
        "load_state_dict": ("self", "destination", "block_index", "adapter_block_index"),
        "to_cuda": ("self", "non_blocking"),
        "weight_name": None,
        "__class__": None,  # becomes a subclass with another `apply`
    },
    **{f"{MM}:{name}": {"apply": ("self", "input_tensor")} for name in LINEAR_CLASSES},
    f"{MM}:MMWeightGGUFTemplate": {
        "apply": ("self", "input_tensor"),
        "get_weight": ("self", "tensor", "dtype"),
        "pin_weight": None,
        "pin_bias": None,
    },
    QUANTISED: {
        **dict.fromkeys(("weight", "bias", "weight_scale", "infer_dtype", "pin_weight", "pin_bias")),
    },
    RMS_NORM: {"weight": None, "pin_weight": None, "eps": None, "_get_actual_weight": ("self",)},
    LAYER_NORM: {
        "weight": None,
        "bias": None,
        "pin_weight": None,
        "pin_bias": None,
        "eps": None,
        "_get_actual_weight": ("self",),
        "_get_actual_bias": ("self",),
    },
    CONVOLUTION: {"weight": None, "bias": None, "pin_weight": None, "pin_bias": None},
    ATTENTION: {"apply": ("self", "input_tensor")},  # replaced for a draft
    ULYSSES: {
        "apply_new": (
            "self",
            "q",
            "k",
            "v",
            "aux_q",
            "aux_k",
            "aux_v",
            "attention_module",
            "seq_p_group",
            "prepost_backend",
            "a2a_backend",
            "quant_scheme",
            "tensor_fusion",
            "head_parallel",
            "aux_first",
            "attention_kwargs",
        ),
    },
    "lightx2v.models.video_encoders.hf.tae:TAEHV": {
        "decode_video": ("self", "x", "parallel", "show_progress_bar"),
    },
    TENSOR: {"tensor": None, "pin_tensor": None, "tensor_name": None},
}
# Names of our own on upstream's objects.
OURS: dict[str, frozenset[str]] = {
    BLOCKS: frozenset({"lora_variant"}),
    LINEAR: frozenset({"lora_branch", "lora_base"}),
    SCHEDULER: frozenset(
        {
            "follow", "steps", "solver", "solver_name", "at", "entering", "values", "boundary_step_index", "exact",
            "given", "straight", "is_first", "_begin", "_paste", "_inputs",
        }
    ),
}  # fmt: skip


class SeamError(UserError):
    """LightX2V is not as the engine knows it: the load stops."""

    def __init__(self, place: str, name: str, why: str):
        super().__init__(
            f"seam {place.rpartition(':')[2]}.{name}: {why}. The engine is for LightX2V {COMMIT}; use that commit, "
            "or --engine diffusers, or see wan_ui/engines/lightx2v_seams.py."
        )


def verify() -> None:
    """Hold the list against the LightX2V that is imported. Raises SeamError naming the first that is not as known."""
    for place, seams in SEAMS.items():
        for name, parameters in seams.items():
            _verify(place, name, parameters)
    for place, names in OURS.items():
        for name in sorted(names):
            if _is_there(_place(place, name), name):
                raise SeamError(place, name, "LightX2V has a use of its own for this name now")


def _verify(place: str, name: str, parameters: Parameters) -> None:
    thing = _place(place, name)
    if not _is_there(thing, name):
        raise SeamError(place, name, f"it is gone from {place}")
    if parameters is None:
        return
    method = getattr(thing, name, None)
    if not callable(method):
        raise SeamError(place, name, f"it is no method of {place} any more")
    found = tuple(inspect.signature(method).parameters)
    if found != parameters:
        raise SeamError(place, name, f"it takes {found}, expected {parameters}")


def _place(place: str, name: str) -> Any:
    try:
        module, _, attribute = place.partition(":")
        return getattr(import_module(module), attribute) if attribute else import_module(module)
    except (ImportError, AttributeError) as error:
        raise SeamError(place, name, f"{place} is gone ({error})") from error


def _is_there(place: Any, name: str) -> bool:
    """Whether the module or class has it, or the code of its methods names it: most attributes are made by a method."""
    return hasattr(place, name) or (isinstance(place, type) and name in _named(place))


def _named(cls: type) -> frozenset[str]:
    """All names that the methods of a class of upstream and of its bases speak of."""
    names: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] in ("builtins", "abc", "torch"):
            continue
        for member in vars(base).values():
            function = inspect.unwrap(member) if callable(member) else getattr(member, "fget", member)
            if inspect.isfunction(function):
                names |= names_in(function.__code__)
    return frozenset(names)


@lru_cache(maxsize=256)
def _listed(cls: type, name: str) -> bool:
    places = {f"{base.__module__}:{base.__qualname__}" for base in cls.__mro__}
    return any(name in SEAMS.get(place, {}) or name in OURS.get(place, ()) for place in places)


def put(thing: Any, name: str, value: Any) -> None:
    """Write an attribute of one of upstream's objects. Raises SeamError for one that the list does not have."""
    cls: type = type(thing)
    listed = name in SEAMS.get(thing.__name__, {}) if isinstance(thing, ModuleType) else _listed(cls, name)
    if not listed:
        place = f"{type(thing).__module__}:{type(thing).__qualname__}"
        raise SeamError(place, name, "it is written, but is not among the seams of this class")
    setattr(thing, name, value)


def put_back(thing: Any, name: str) -> None:
    """Take away what `put` has put before what the class has."""
    delattr(thing, name)
