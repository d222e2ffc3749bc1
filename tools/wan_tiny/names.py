"""diffusers' and transformers' tensor names -> the original Wan names, for any size.

diffusers' own converters go the other way and hard-code two residual blocks and four
stages; these read the structure off the names. Values are never touched, only renamed.
"""

import re


def expert_to_wan(state):
    """WanTransformer3DModel.state_dict() -> names of Wan's model.py."""
    rules = [
        (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
        (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
        (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
        (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
        (r"^condition_embedder\.time_proj\.", "time_projection.1."),
        (r"^scale_shift_table$", "head.modulation"),
        (r"^proj_out\.", "head.head."),
        (r"\.scale_shift_table$", ".modulation"),
        (r"\.attn1\.", ".self_attn."),
        (r"\.attn2\.", ".cross_attn."),
        (r"\.to_out\.0\.", ".o."),
        (r"\.to_([qkv])\.", r".\1."),
        (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
        (r"\.ffn\.net\.2\.", ".ffn.2."),
        (r"^(blocks\.\d+)\.norm2\.", r"\1.norm3."),
    ]
    return {_apply(rules, k): v for k, v in state.items()}


def vae_to_wan(state, num_res_blocks):
    """AutoencoderKLWan.state_dict() -> names of Wan's vae2_1.py."""
    rules = [
        (r"^quant_conv\.", "conv1."),
        (r"^post_quant_conv\.", "conv2."),
        (r"\.conv_in\.", ".conv1."),
        (r"\.norm_out\.", ".head.0."),
        (r"\.conv_out\.", ".head.2."),
        (r"\.mid_block\.attentions\.0\.", ".middle.1."),
        (r"\.mid_block\.resnets\.0\.", ".middle.0."),
        (r"\.mid_block\.resnets\.1\.", ".middle.2."),
        (r"\.down_blocks\.", ".downsamples."),
        (r"\.norm1\.", ".residual.0."),
        (r"\.norm2\.", ".residual.3."),
        (r"\.conv_shortcut\.", ".shortcut."),
    ]
    per_stage = num_res_blocks + 2  # the residual blocks (one more than the encoder has) and the upsampler
    out = {}
    for key, value in state.items():
        m = re.match(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.(.*)", key)
        if m:
            stage, kind, index, rest = int(m[1]), m[2], int(m[3]), m[4]
            position = stage * per_stage + (index if kind == "resnets" else num_res_blocks + 1)
            key = f"decoder.upsamples.{position}.{rest}"
        name = _apply(rules, key)
        if re.search(r"(middle\.[02]|samples\.\d+)\.conv[12]\.", name):  # convolutions inside a residual block
            name = name.replace(".conv1.", ".residual.2.").replace(".conv2.", ".residual.6.")
        out[name] = value
    return out


def text_to_wan(state):
    """UMT5EncoderModel.state_dict() -> names of Wan's t5.py."""
    rules = [
        (r"^shared\.", "token_embedding."),
        (r"^encoder\.final_layer_norm\.", "norm."),
        (r"^encoder\.block\.", "blocks."),
        (r"\.layer\.0\.SelfAttention\.relative_attention_bias\.", ".pos_embedding.embedding."),
        (r"\.layer\.0\.SelfAttention\.", ".attn."),
        (r"\.layer\.0\.layer_norm\.", ".norm1."),
        (r"\.layer\.1\.layer_norm\.", ".norm2."),
        (r"\.layer\.1\.DenseReluDense\.wi_0\.", ".ffn.gate.0."),
        (r"\.layer\.1\.DenseReluDense\.wi_1\.", ".ffn.fc1."),
        (r"\.layer\.1\.DenseReluDense\.wo\.", ".ffn.fc2."),
    ]
    return {_apply(rules, k): v for k, v in state.items() if k != "encoder.embed_tokens.weight"}


def _apply(rules, name):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
