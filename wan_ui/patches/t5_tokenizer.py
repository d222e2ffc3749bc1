"""The prompt's token ids are those of the original's tokenizer.

Symptom: none to see. A prompt with an emoji, a rare character or an accent that the vocabulary lacks makes another
clip than with the original: each such character becomes one id that means nothing, or a wrong word.

Mechanism: the released tokenizer_config.json names T5Tokenizer, which transformers 5 builds anew from the vocabulary,
with an unknown id of its own and without the byte fallback that the vocabulary was trained with. Here the runner's
text encoder gets the tokenizer of wan_ui.files.tokenizer, which both engines share.

Remove when: upstream's HuggingfaceTokenizer gives the ids of sentencepiece for characters beyond the vocabulary.
"""

from pathlib import Path

from wan_ui.patches.record import Patch

NAME = "t5_tokenizer"
TARGET = "lightx2v.models.input_encoders.hf.wan.t5.tokenizer:HuggingfaceTokenizer.__call__"


def applies(facts, scheme) -> tuple[bool, str]:
    return True, "both engines read prompts alike"


class OriginalIds:
    """What upstream's text encoder calls: texts -> (ids, mask), (texts, length) each, padded."""

    def __init__(self, folder: Path, length: int):
        from wan_ui.files.tokenizer import load_tokenizer

        self.tokenizer, self.length = load_tokenizer(folder, length), length
        self.tokenizer.enable_padding(length=length, pad_id=self.tokenizer.token_to_id("<pad>") or 0)

    def __call__(self, texts, return_mask=False, **_):
        import torch

        from wan_ui.files.tokenizer import clean

        read = self.tokenizer.encode_batch([clean(text) for text in ([texts] if isinstance(texts, str) else texts)])
        ids = torch.tensor([entry.ids for entry in read])
        return (ids, torch.tensor([entry.attention_mask for entry in read])) if return_mask else ids


def apply(runner) -> None:
    for encoder in runner.text_encoders:
        encoder.tokenizer = OriginalIds(Path(encoder.tokenizer_path), encoder.text_len)


def verify(runner) -> str:
    for encoder in runner.text_encoders:
        ids, mask = encoder.tokenizer(["a cat"], return_mask=True, add_special_tokens=True)
        assert ids.shape == mask.shape == (1, encoder.text_len), f"ids of shape {tuple(ids.shape)}"
        assert 1 < mask.sum() < encoder.text_len, f"{int(mask.sum())} tokens for two words"
    return f"{int(mask.sum())} tokens for two words, the rest is padding"


PATCH = Patch(
    name=NAME,
    phase="after_init",
    targets={TARGET: ("self", "sequence", "kwargs")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
