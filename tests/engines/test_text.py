"""Token ids are those of sentencepiece, the original's slow tokenizer, for characters beyond the vocabulary too."""

import json

import pytest
import sentencepiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from wan_ui.files.tokenizer import clean, load_tokenizer
from wan_ui.patches.t5_tokenizer import OriginalIds
from wan_ui.settings import ROOT

PROMPTS = (
    "a cat walks slowly, the camera zooms in",
    "a cat \U0001f408 and a dog \U0001f415‍\U0001f9ba",
    "镜头缓慢推进, 夕阳",
    "Œuvre naïve: ﬁn ½ ｆｕｌｌ",
    "the ᚠᛇᚻ runes \U00012000",
    "",
)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A vocabulary as umt5's: <pad> 0, </s> 1, <unk> 2, then the 256 bytes, which unknown characters fall back to."""
    folder = tmp_path_factory.mktemp("umt5")
    text = ["a cat walks slowly while the camera zooms in on the sunset", "a dog and a man run, full of light"] * 50
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_prefix=str(folder / "spiece"),
        vocab_size=340,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))


@pytest.fixture(params=["as trained", "another unknown id, no byte fallback"])
def folder(request, slow, tmp_path):
    """tokenizer.json and a tokenizer_config.json that names T5Tokenizer, as a converter writes them."""
    trained = request.param == "as trained"
    vocabulary = [(slow.id_to_piece(i), slow.get_score(i)) for i in range(len(slow))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, 2 if trained else 3, byte_fallback=trained))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"unk_token": "<unk>"}))
    return tmp_path


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_of_the_slow_tokenizer_in_both_engines(slow, folder, prompt):
    expected = [*slow.encode(clean(prompt)), 1]
    assert load_tokenizer(folder, 512).encode(clean(prompt)).ids == expected
    ids, mask = OriginalIds(folder, 512)([prompt], return_mask=True, add_special_tokens=True)
    assert ids.shape == (1, 512) and ids[0, : len(expected)].tolist() == expected
    assert mask.sum() == len(expected) and not ids[0, len(expected) :].any()


def test_transformers_own_rebuilding_differs(slow, folder):
    """Why neither engine takes AutoTokenizer."""
    from transformers import AutoTokenizer

    rebuilt = AutoTokenizer.from_pretrained(str(folder))
    assert rebuilt(PROMPTS[0]).input_ids == [*slow.encode(PROMPTS[0]), 1]
    assert rebuilt(PROMPTS[1]).input_ids != [*slow.encode(PROMPTS[1]), 1]


def test_a_long_prompt_keeps_its_end_mark(slow, folder):
    prompt = "a cat walks slowly " * 30
    assert load_tokenizer(folder, 16).encode(clean(prompt)).ids == [*slow.encode(clean(prompt))[:15], 1]


def test_wan_tinys_own_vocabulary_is_left_as_it_is():
    folder = ROOT / "assets/wan-tiny/google/umt5-xxl"
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for prompt in PROMPTS:
        assert load_tokenizer(folder, 512).encode(clean(prompt)).ids == plain.encode(clean(prompt)).ids
