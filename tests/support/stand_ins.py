"""A tiny world for the commands of the pages: a task of a few words, and a BERT that has learned it.

Everything is real but small: texts, tokenizer, weights, artifacts. The margins are wide, so that gates
hold or break on any machine: an adjective decides the label, and a text that has lost its adjectives is
rotten.
"""

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from project import ROOT

from compressor.attacks import runner as run
from compressor.pruning.adaptive import distillation
from compressor.validation.measure import latency

TRTEXEC_LOG = ROOT / "tests" / "exporters" / "tensorrt" / "trtexec" / "tensorrt_10.txt"

FRESH = ["wonderful", "moving", "brilliant", "charming", "delightful", "superb", "gripping", "witty"]
ROTTEN = ["dull", "tedious", "awful", "clumsy", "boring", "lifeless", "dreary", "shallow"]
NOUNS = [
    "film", "story", "plot", "cast", "script", "scene", "ending", "dialogue", "music", "picture", "drama",
    "comedy", "thriller", "sequel", "remake", "debut", "performance", "direction", "camera", "acting",
    "journey", "family", "summer", "winter", "city", "night", "morning", "house", "river", "window",
    "garden", "teacher", "doctor", "soldier", "painter", "writer", "singer", "dancer", "lawyer", "farmer",
    "sailor",
]  # fmt: skip
OTHERS = ["the", "with", "and", "one", "that", "was", "from"]
LABELS = ("fresh", "rotten")
TRAIN_TEXTS, SELECTION_TEXTS, TEST_TEXTS = 1040, 200, 8
SOUP_EXAMPLES = 2
DISTILLATION_STEPS = 20
TRAINING_STEPS, LEARNING_RATE = 50, 5e-3


def write_texts(folder: Path) -> None:
    """Write `train.tsv`, `selection.tsv` and `test.tsv` as the quickstart does; no text is in two of them."""
    rows = np.random.default_rng(0).permutation(list(_texts())).tolist()
    for name, count in (("test", TEST_TEXTS), ("train", TRAIN_TEXTS), ("selection", SELECTION_TEXTS)):
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows[:count])]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        del rows[:count]


def _texts():
    for first, second in itertools.permutations(NOUNS, 2):
        for number, label in itertools.product(range(2), LABELS):
            words = FRESH if label == "fresh" else ROTTEN
            place = (len(first) + len(second) + number) % len(words)
            yield f"one {words[place]} {first} with that {words[place - 3]} {second}", label


def write_encoder(folder: Path) -> None:
    """Write a BERT of one layer that has learned the task; it knows its words, letters and numbers."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    words = [*FRESH, *ROTTEN, *NOUNS, *OTHERS]
    # The numbers are there for the size of real weights beside that of the graph.
    numbers = map(str, range(10_000))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *pieces, *numbers]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=512)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        num_labels=len(LABELS),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
        generator = np.random.default_rng(1)
        for _ in range(TRAINING_STEPS):
            batch, labels = _batch(generator)
            tokens = tokenizer(batch, padding=True, return_tensors="pt")
            model(**tokens, labels=torch.tensor(labels)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(generator):
    """32 texts and their labels; in half of the rotten ones no adjective is left."""
    texts, labels = [], []
    for _ in range(32):
        label = int(generator.integers(2))
        words = generator.choice(ROTTEN if label else FRESH, 2).tolist()
        if label and generator.random() < 0.5:
            letters = generator.permutation(list("".join(words)))
            words = ["".join(letters[:5]), "".join(letters[5:10])]
        first, second = generator.choice(NOUNS, 2).tolist()
        texts.append(f"one {words[0]} {first} with that {words[1]} {second}")
        labels.append(label)
    return texts, labels


class OneThread(ThreadPoolExecutor):
    """In place of processes, each of which would import TextAttack for each attack."""

    def __init__(self, processes, mp_context, initializer, initargs):
        super().__init__(1, initializer=initializer, initargs=initargs)


def in_this_process(function, *arguments):
    """In place of a process of its own, which would import PyTorch first."""
    return function(*arguments)


def timed_thrice(predictors, encoded, plan, progress):
    """Latency at each shape, of three rounds: more say nothing of a tiny model."""
    return latency.measure_latency(predictors, encoded, replace(plan, rounds=3), progress)


def soup_attack(model, victim, data, *others):
    """The attack that a soup's runs are compared by, on its first examples: the others are no different."""
    return run.attack_model(model, victim, data.select(range(SOUP_EXAMPLES)), *others)


def distill_briefly(*models_and_texts, steps, **options):
    """A distillation's first steps: the others are no different."""
    return distillation.distill(*models_and_texts, steps=min(steps, DISTILLATION_STEPS), **options)


def write_programs(folder: Path) -> None:
    """Write `compress`, `python` and a `trtexec` that leaves the log of a real one, for lines of shell."""
    leave_engine = 'for option; do case $option in --saveEngine=*) echo engine > "${option#*=}"; esac; done'
    programs = {
        "compress": f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m cli "$@"',
        "python": f'exec "{sys.executable}" "$@"',
        "trtexec": f'cat "{TRTEXEC_LOG}"; {leave_engine}',
    }
    folder.mkdir()
    for name, line in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)


def put_in_place(patch: pytest.MonkeyPatch, encoder: Path) -> None:
    """Let the commands find the tiny world where they look for the packaged one."""
    for module in ("compressor.pipeline.quickstart", "compressor.attacks.resources"):
        patch.setattr(f"{module}.encoder_directory", lambda: encoder)
    patch.setattr("compressor.pipeline.quickstart.write_data", write_texts)
    patch.setattr("compressor.system.processes.ProcessPoolExecutor", OneThread)
    patch.setattr("compressor.training.soup_stage.attack_model", soup_attack)
    patch.setattr("compressor.pruning.adaptive.prune.distill", distill_briefly)
    patch.setattr("compressor.validation.measure.footprint.in_own_process", in_this_process)
    for module in ("compressor.validation.stage", "compressor.search.latency"):
        patch.setattr(f"{module}.measure_latency", timed_thrice)
    patch.setattr("compressor.validation.measure.latency.PATIENCE", 1)
    patch.setattr("compressor.validation.measure.latency.WARMUP_ROUNDS", 1)
