"""Small valid inputs for the campaigns: a random BERT classifier, labelled texts, and a recipe.

Everything is made in milliseconds, and the same from a seed; what a model answers is of no interest here,
only that it depends on every token, so that a text that was read wrongly is answered otherwise.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
import yaml

LABELS = ("negative", "positive")
MAX_LENGTH = 32
# fmt: off
FILM_WORDS = (
    "film", "movie", "plot", "actor", "scene", "story", "ending", "music", "dialogue", "script",
    "director", "cast", "camera", "sequel", "comedy", "good", "bad", "great", "poor", "fine", "dull",
    "funny", "sad", "slow", "fast", "warm", "cold", "bright", "flat", "clever", "silly", "moving",
    "boring", "is", "was", "seems", "feels", "looks", "stays", "never", "always", "almost", "hardly",
    "very", "quite", "rather", "too", "so", "not", "and", "but", "or", "the", "a",
)
# fmt: on
# What a reader of tables may take for structure, or a tokenizer for something else.
ODD_WORDS = (
    '"quoted"',
    "it's",
    "a,b",
    "50%",
    "null",
    "NA",
    "1.0",
    "naïve",
    "café",
    "日本",
    "#1",
    "--",
    "=1+1",
)


def vocabulary() -> list[str]:
    """The tokens of the tiny model: special ones, single characters, pieces, and the words of the texts."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    words = [word for word in FILM_WORDS if len(word) > 1]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *pieces, *words]


def make_model(folder: Path, *, seed: int = 0, layers: int = 1, width: int = 16) -> Path:
    """Write a random `BertForSequenceClassification` with its tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True)
    tokens = vocabulary()
    words = folder / "vocab.txt"
    words.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(words), model_max_length=64)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        # Large, so that two texts that differ are answered differently.
        initializer_range=0.6,
        id2label=dict(enumerate(LABELS)),
        label2id={name: place for place, name in enumerate(LABELS)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # As people's checkpoints have it, whatever version of transformers wrote them.
    named = json.dumps(tokenizer.special_tokens_map, indent=2)
    (folder / "special_tokens_map.json").write_text(named, encoding="utf-8")
    return folder


def make_rows(count: int, seed: int = 0, *, odd: bool = True) -> list[tuple[str, str]]:
    """Texts of 3 to 12 words, all different, and their labels, both of which occur.

    Args:
        odd: with words that hold quotes, separators and letters outside ASCII.
    """
    generator = random.Random(seed)
    rows = []
    for place in range(count):
        words = generator.choices(FILM_WORDS, k=generator.randint(3, 12))
        if odd and place % 3 == 0:
            words.insert(generator.randrange(1, len(words)), generator.choice(ODD_WORDS))
        rows.append(
            (f"{' '.join(words)} {place}", LABELS[place % 2 if place < 2 else generator.randrange(2)])
        )
    return rows


def write_tsv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Write rows as a tsv file with the columns `text` and `label`."""
    lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return path


def make_recipe(path: Path, model: str, train: str, test: str) -> Path:
    """Write a recipe whose stages take seconds in all on a tiny model."""
    recipe = {
        "model": model,
        "data": {"train": train, "calibration": train, "test": test, "max_length": MAX_LENGTH},
        "run": {"device": "cpu", "threads": 1, "seed": 3},
        "finetune": {"epochs": 1, "batch_size": 8},
        "prune": {"algorithm": "adaptive", "sparsity": 0.5, "calibration_examples": 8},
        "export": {"parity_examples": 8},
        "attack": {"attack": "deepwordbug", "attack_examples": 2},
        "validate": {
            "gates": ["accuracy_drop <= 1"],
            "batch_sizes": [1],
            "sequence_lengths": [8],
            "latency_rounds": 5,
            "footprint": False,
        },
    }
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path
