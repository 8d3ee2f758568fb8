"""Tokenizers that the versions of transformers read in different ways, and those that each version saved.

`python tests/support/tokenizer_kinds.py` writes those of the installed version anew (tests/data/tokenizers).
"""

import json
import shutil
import sys
from pathlib import Path

SAVED = Path(__file__).parents[1] / "data" / "tokenizers"
LETTERS = [chr(code) for code in range(97, 123)]
WORDS = ["film", "Film", "great", "charm", "é"]
PIECES = [f"##{letter}" for letter in LETTERS]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *PIECES]
TEXTS = [
    "A great film",
    "",
    "the ﬁlm, FILM and Film [SEP] of é",
    "great charm <s1> great",
    "a </s1> charm 中 film",
]
KINDS = ("plain", "cased", "accents", "two special tokens", "an added word", "normalized", "another template")


def make_kind(kind, folder):
    """Save a tokenizer as a program that uses transformers would; the tokenizer."""
    from tokenizers import normalizers, processors
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True)
    words = folder / "vocab.txt"
    words.write_text("\n".join(VOCABULARY) + "\n")
    options = {"cased": {"do_lower_case": False}, "accents": {"strip_accents": False}}.get(kind, {})
    tokenizer = BertTokenizerFast(str(words), model_max_length=16, **options)
    words.unlink()
    backend = tokenizer.backend_tokenizer
    if kind == "two special tokens":
        key = "extra_special_tokens" if is_new() else "additional_special_tokens"
        tokenizer.add_special_tokens({key: ["<s1>", "</s1>"]})
    if kind == "an added word":
        tokenizer.add_tokens(["great charm"])
    if kind == "normalized":
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), backend.normalizer])
    if kind == "another template":
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP] [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer


def ids_of(tokenizer):
    """Token ids and segments of the texts, alone and in pairs."""
    pairs = [tokenizer(text, text, return_token_type_ids=True) for text in TEXTS]
    return [tokenizer(text)["input_ids"] for text in TEXTS] + [
        [pair["input_ids"], pair["token_type_ids"]] for pair in pairs
    ]


def is_new():
    """Whether transformers is version 5 or later."""
    import transformers

    return int(transformers.__version__.partition(".")[0]) >= 5


def main():
    """Write the tokenizers as this version saves them, by itself and by `save_tokenizer`."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from compressor.models.classifier import load_tokenizer
    from compressor.models.transformers_versions import save_tokenizer

    version = SAVED / ("transformers5" if is_new() else "transformers4")
    shutil.rmtree(version, ignore_errors=True)
    for kind in KINDS:
        folder = version / kind.replace(" ", "_")
        tokenizer = make_kind(kind, folder / "source")
        (folder / "saved").mkdir()
        save_tokenizer(load_tokenizer(str(folder / "source")), folder / "saved")
        (folder / "ids.json").write_text(json.dumps(ids_of(tokenizer)))


if __name__ == "__main__":
    main()
