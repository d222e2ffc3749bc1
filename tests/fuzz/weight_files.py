"""Weight files that are wrong deep inside: where their lengths, checksums and offsets fit, so that the parser goes on.

`mutations.of_bytes` alone seldom comes further than the first length. Here the outside is built anew around values
that are exchanged; now and then it is spoilt, too.
"""

import io
import json
import math
import struct
import warnings
import zipfile
from random import Random
from typing import Any

from tests.fuzz import mutations
from wan_ui.files.headers import GGUF_SCALARS, SAFETENSORS_BYTES

DTYPES = (*SAFETENSORS_BYTES, "F4", "C64", "f32", "")
MODULES = (
    "blocks.{}.self_attn.q", "blocks.{}.self_attn.norm_k", "blocks.{}.cross_attn.k_img", "blocks.{}.cross_attn.o",
    "blocks.{}.ffn.0", "blocks.{}.ffn.2", "blocks.{}.norm3", "blocks.{}.modulation", "blocks.{}.attn1.to_q",
    "blocks.{}.attn2.add_k_proj", "blocks.{}.ffn.net.0.proj", "blocks.{}", "patch_embedding", "head.head", "head",
    "proj_out", "scale_shift_table", "text_embedding.0", "time_projection.1", "img_emb.proj.1", "face_adapter.{}.q",
    "vace_blocks.{}.q", "condition_embedder.time_proj", "blocks.{}.unknown", "text_model.x", "double_blocks.{}.x",
    "decoder.conv1", "conv2", "token_embedding", "encoder.block.{}.layer.0", "blocks.{}.pos_embedding.embedding",
)  # fmt: skip
LEAVES = (
    "weight", "bias", "lora_down.weight", "lora_up.weight", "lora_A.weight", "lora_B.weight", "lora_A.default.weight",
    "lora_B.bias", "alpha", "lora_alpha", "diff", "diff_b", "diff_m", "w_norm", "dora_scale", "lokr_w1", "hada_w1_a",
    "lora_mid.weight", "scale_weight", "weight_scale", "comfy_quant", "lora_magnitude_vector", "gate", "on_input", "",
)  # fmt: skip
BEFORE = (
    "", "diffusion_model.", "model.diffusion_model.", "base_model.model.", "transformer.", "transformer_2.",
    "lora_unet_", "lycoris_", "lora_transformer_", "pipe.dit2.", "_orig_mod.", "module.", "low_noise.", "unet.unet.",
    "first_stage_model.", "text_encoders.umt5xxl.transformer.",
)  # fmt: skip
TEXTS = {
    "lora_adapter_metadata": '{"r": 4, "lora_alpha": 8, "alpha_pattern": {"a": 1}, "rank_pattern": {"^b$": 2}}',
    "config": '{"transformer": {"lora_alpha": 4, "r": 4, "use_rslora": true}}',
    "transformer.lora_alpha": "8",
    "use_dora": "true",
    "lora_alpha": "16",
    "alpha_pattern": '{"blocks.0": 4}',
    "ss_network_alpha": "2",
    "ss_network_dim": "4",
    "ss_min_timestep": "875",
    "ss_max_timestep": "875",
    "ss_base_model_version": "wan2.1",
    "expert": "high-noise",
    "trigger_words": "a, b; c",
    "notes": "x " * 300,
    "format": "pt",
    "workflow": '{"nodes": [{"lora_alpha": 3}]}',
    "wan_ui.config": '{"dim": 16, "num_layers": 2, "audio_inject_layers": [0, 1], "model_type": "s2v"}',
    "general.name": "wan high_noise",
    "general.architecture": "wan",
    "x": '"{\\"lora_alpha\\": 3}"',
}


def of_safetensors(random: Random, base: bytes, others: list[bytes]) -> bytes:
    """A safetensors file whose header is JSON again, with other entries in it; mostly with as many data as it says."""
    if random.random() < 0.25:
        return mutations.of_bytes(random, base, others)
    length = int.from_bytes(base[:8], "little")
    entries = json.loads(base[8 : 8 + length])
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        _change_entries(random, entries)
    if random.random() < 0.6:
        _lay(entries)
    raw = _json(random, entries)
    if random.random() < 0.15:
        raw = mutations.exchange(random, raw)
    said = len(raw) if random.random() < 0.95 else random.choice((*mutations.NUMBERS, len(raw) + 1)) % 2**64
    # Of a file that ends with its header the data are holes; see targets.
    data = b"" if length + 8 == len(base) else bytes(min(_end(entries), 100_000))
    return struct.pack("<Q", said) + raw + data


def _change_entries(random: Random, entries: dict) -> None:
    names = [name for name in entries if name != "__metadata__"]
    name = random.choice(names) if names else ""
    match random.randrange(9):
        case 0 | 1 if names and isinstance(entries[name], dict):
            mutations.change(random, entries[name])
        case 2:
            entries[tensor_name(random)] = entry(random)
        case 3 if names:
            entries[tensor_name(random)] = entries.pop(name)
        case 4 if names and isinstance(entries[name], dict):
            entries[name]["dtype"] = random.choice(DTYPES)
        case 5 if names and isinstance(entries[name], dict):
            entries[name]["shape"] = shape(random)
        case 6:
            texts = entries.setdefault("__metadata__", {})
            if isinstance(texts, dict):
                key = random.choice((*TEXTS, *mutations.TEXTS))
                texts[key] = metadata_text(random)
        case 7 if names:
            del entries[name]
        case _:
            mutations.change(random, entries)


def metadata_text(random: Random) -> Any:
    text = random.choice(tuple(TEXTS.values()))
    match random.randrange(4):
        case 0:
            return mutations.exchange(random, text.encode()).decode("utf-8", "surrogatepass")
        case 1:
            return json.dumps(mutations.value(random))
        case 2:
            return mutations.value(random)
    return text


def tensor_name(random: Random) -> str:
    if random.random() < 0.1:
        return random.choice(mutations.TEXTS)
    module = random.choice(MODULES).format(random.choice((0, 0, 1, 39, 40, 9999, "x", -1)))
    before, leaf = random.choice(BEFORE), random.choice(LEAVES)
    if before.endswith("_") and random.random() < 0.9:
        module = module.replace(".", "_")
    return f"{before}{module}.{leaf}" if leaf else f"{before}{module}"


def shape(random: Random) -> Any:
    if random.random() < 0.1:
        return mutations.value(random)
    sizes = (0, 1, 2, 4, 8, 16, 1536, 5120, 2**20, 2**48, 2**64)
    return [
        random.choice(sizes[: random.choice((6, 6, 8, 11))]) for _ in range(random.choice((0, 1, 1, 2, 2, 2, 3, 5, 17)))
    ]


def entry(random: Random) -> dict:
    begin = random.choice((0, 4, 64))
    return {"dtype": random.choice(DTYPES[:8]), "shape": shape(random), "data_offsets": [begin, begin + 64]}


def _lay(entries: dict) -> None:
    """One after another, as long as shape and type say, where they say anything."""
    end = 0
    for name, one in entries.items():
        if name == "__metadata__" or not isinstance(one, dict) or not isinstance(one.get("shape"), list):
            continue
        sizes = one["shape"]
        if not all(type(size) is int and 0 <= size < 2**49 for size in sizes) or not isinstance(one.get("dtype"), str):
            continue
        begin, end = end, end + math.prod(sizes) * SAFETENSORS_BYTES.get(one["dtype"], 1)
        one["data_offsets"] = [begin, end]


def _end(entries: dict) -> int:
    ends = [one["data_offsets"] for one in entries.values() if isinstance(one, dict) and "data_offsets" in one]
    ends = [one[-1] for one in ends if isinstance(one, list) and one]
    return max((end for end in ends if type(end) is int and end >= 0), default=0)


def _json(random: Random, entries: dict) -> bytes:
    """Now and then with spaces, with a name twice, or not in ASCII."""
    raw = json.dumps(entries, ensure_ascii=random.random() < 0.8)  # indented it takes ten times as long
    if random.random() < 0.1:
        raw = raw.replace(",", ",\n\t ")
    if random.random() < 0.05 and len(entries) > 1:
        raw = raw[:-1] + ", " + raw[1:]
    return raw.encode("utf-8", "surrogatepass") + b" " * random.choice((0, 0, 0, 7))


class _Spoilt:
    """Writes GGUF's numbers; each becomes another with a probability of `rate`."""

    def __init__(self, random: Random, rate: float):
        self.random, self.rate = random, rate

    def number(self, code: str, value: float) -> bytes:
        size = struct.calcsize("<" + code)
        if self.random.random() < self.rate:
            return struct.pack("<Q", self.random.choice(mutations.NUMBERS) % 2**64)[:size]
        return struct.pack("<" + code, value)

    def string(self, text: bytes) -> bytes:
        return self.number("Q", len(text)) + text

    def value(self, kind: int, depth: int = 0) -> bytes:
        random = self.random
        if kind == 8:
            return self.string(random.choice((*TEXTS.values(), *mutations.TEXTS)).encode("utf-8", "surrogatepass"))
        if kind == 9:
            item, count = random.choice((*GGUF_SCALARS, 8, 8, 9, 13)), random.choice((0, 1, 3, 3, 1024, 1025))
            count = min(count, 4) if item == 9 or depth else count
            head = self.number("I", item) + self.number("Q", count)
            return head + (b"".join(self.value(item, depth + 1) for _ in range(count)) if depth < 3 else b"")
        code = GGUF_SCALARS.get(kind, "I")
        size = struct.calcsize("<" + code)
        return self.number("Q", random.choice(mutations.NUMBERS) % 2**64)[:size]


def of_gguf(random: Random, base: bytes, others: list[bytes]) -> bytes:
    """A GGUF file of any metadata and tensors, mostly with offsets that fit; or `base` with wrong bytes."""
    if random.random() < 0.3:
        return mutations.of_bytes(random, base, others)
    write = _Spoilt(random, random.choice((0.0, 0.0, 0.01, 0.05, 0.3)))
    alignment = random.choice((None, None, 32, 1, 64, 65_536, 0, 3))
    metadata = []
    for _ in range(random.choice((0, 1, 2, 3, 6))):
        kind = random.choice((*GGUF_SCALARS, 8, 8, 9, 9, 13, 255))
        key = random.choice((*TEXTS, *mutations.TEXTS, "general.alignment")).encode("utf-8", "surrogatepass")
        metadata.append(write.string(key) + write.number("I", kind) + write.value(kind))
    if alignment is not None:
        value = write.number("I", 4) + write.number("I", alignment)
        metadata.insert(random.randrange(len(metadata) + 1), write.string(b"general.alignment") + value)
    step, table, offset = alignment or 32, [], 0
    for _ in range(random.choice((0, 1, 1, 2, 3, 8))):
        name = tensor_name(random).encode("utf-8", "surrogatepass")
        kind, block, size = random.choice(
            ((0, 1, 4), (1, 1, 2), (8, 32, 34), (2, 32, 18), (12, 256, 144), (30, 1, 2), (40, 1, 1))
        )
        dims = [random.choice((1, 2, 4)) for _ in range(random.choice((0, 1, 1, 2, 2, 4, 5, 6)))]
        dims[:1] = [dims[0] * block] if dims and random.random() < 0.95 else dims[:1]
        count = math.prod(dims)
        numbers = b"".join(write.number("Q", dim) for dim in dims)
        place = write.number("I", kind) + write.number("Q", offset)
        table.append(write.string(name) + write.number("I", len(dims)) + numbers + place)
        offset += -(-(count // block * size) // step) * step
    version = random.choice((2, 3, 3, 3, 1, 4))
    head = b"GGUF" + struct.pack("<I", version) + write.number("Q", len(table)) + write.number("Q", len(metadata))
    whole = head + b"".join(metadata) + b"".join(table)
    return whole + bytes(-len(whole) % step) + bytes(min(offset, 200_000) + random.choice((0, 0, 0, -1, 1, 40)) % 100)


def of_pth(random: Random, base: bytes, others: list[bytes]) -> bytes:
    """An archive of other entries with right checksums; or `base` with wrong bytes."""
    if random.random() < 0.5:
        return mutations.of_bytes(random, base, others)
    content, table = io.BytesIO(), b""
    with warnings.catch_warnings(), zipfile.ZipFile(content, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for _ in range(random.choice((0, 1, 2, 3, 20))):
            name = random.choice(
                (
                    "archive/data.pkl",
                    "data.pkl",
                    "archive/data/0",
                    "archive/version",
                    "x/../data.pkl",
                    "/data.pkl",
                    "é",
                    "",
                )
            )
            table = b"".join(random.choice(PICKLED) for _ in range(random.choice((0, 1, 5, 40))))
            how = random.choices(PACKED, (8, 8, 1, 1))[0]
            archive.writestr(zipfile.ZipInfo(name), table, how)
        archive.comment = random.choice((b"", b"", b"x" * 70, b"PK\5\6"))
    whole = content.getvalue()
    match random.randrange(4):
        case 0:
            whole = random.randbytes(random.choice((1, 30))) + whole  # an archive may have a beginning
        case 1:
            whole = mutations.of_bytes(random, whole, others)
    return whole


PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)  # the last two take long
# Of pickles: opcodes, names that a Wan file has, calls that are never to be made.
PICKLED = (
    b"\x80\x02}q\x00(", b"X\x14\x00\x00\x00decoder.conv1.weight", b"X\x0c\x00\x00\x00conv2.weight", b"cos\nsystem\n",
    b"(S'x'\ntR", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"K\x01K\x02\x86", b"u.",
    b"blocks.0.pos_embedding.embedding.weight", b"weight_scale", b"\x8a\xff", b"(((((", b"2" * 50, b"r\xff\xff\xff\x7f",
    b"downsamples.0.downsamples.0.residual", b"Q", b"R", b"b", b".", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
)  # fmt: skip
