"""Train Wan-Tiny's tokenizer: UMT5's kind (Unigram, Metaspace, "</s>" at the end), 2,048 pieces, lower case.

    python tokenizer.py WORDS.txt OUT/        writes tokenizer.json, tokenizer_config.json

The corpus is the prompt grammar plus ordinary English words, so that a word outside the
grammar still splits into syllables instead of becoming unknown.
"""

import json
import random
import sys
from pathlib import Path

import prompts
from architecture import TEXT


def train(words, seed=0):
    """English words -> tokenizers.Tokenizer with <pad> 0, </s> 1, <unk> 2."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    rng = random.Random(seed)
    corpus = [prompts.sample(rng, words)[0] for _ in range(20000)]
    corpus += [" ".join(rng.choice(words) for _ in range(8)) for _ in range(2500)]
    corpus += list("abcdefghijklmnopqrstuvwxyz0123456789.,!?;:-'\"()&%") * 20
    tokenizer.train_from_iterator(
        corpus,
        trainers.UnigramTrainer(
            vocab_size=TEXT["vocab_size"],
            special_tokens=["<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def main(words_file, target):
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    tokenizer = train(Path(words_file).read_text(encoding="utf-8").split())
    tokenizer.save(str(target / "tokenizer.json"))
    (target / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": 512,
                "pad_token": "<pad>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "padding_side": "right",
            },
            indent=1,
        )
        + "\n"
    )
    print(tokenizer.get_vocab_size(), tokenizer.encode("The camera slowly zooms in on a platypus, golden hour").tokens)


if __name__ == "__main__":
    main(*sys.argv[1:3])
