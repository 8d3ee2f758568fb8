"""Attacks on a small real classifier and on its exported artifact."""

import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT

from compressor.attacks.recipes import universal_tags
from compressor.attacks.records import (
    AttackedExample,
    mean_accuracy,
    read_examples,
    summarize,
    under_word_budgets,
)
from compressor.attacks.runner import attack_victim
from compressor.attacks.stage import attack_directory
from compressor.attacks.victims import Victim
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.lexicon.stopwords import STOPWORDS
from compressor.lexicon.word_vectors import load_word_vectors
from compressor.models.predictors import OnnxPredictor, TorchPredictor
from compressor.models.runtimes import load_predictor
from compressor.options import AttackConfig, ColumnsConfig, ExportConfig, RunConfig
from compressor.system.assets import encoder_directory
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters.stage import export_directory

DEEPWORDBUG = AttackConfig(attack="deepwordbug")
EXAMPLES = 8


@pytest.fixture(scope="module")
def texts(test_quotes: TextData) -> TextData:
    return test_quotes.select(range(EXAMPLES))


@pytest.fixture(scope="module")
def artifact(small_classifier_dir, critic_quotes, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("artifact") / "artifact"
    export_directory(
        str(small_classifier_dir),
        str(critic_quotes / "small.tsv"),
        ExportConfig(parity_examples=20),
        Context(
            output=output,
            columns=ColumnsConfig(max_length=48),
            run=RunConfig(threads=2),
            progress=SilentProgress(),
        ),
    )
    return output


def attack(predictor, texts, config=DEEPWORDBUG, seed=0):
    examples, _ = attack_victim(Victim(predictor, 48), texts, config, seed, SilentProgress())
    return [
        (e.outcome, e.perturbed, e.perturbed_pair, e.queries, round(e.words_changed, 6)) for e in examples
    ]


def test_pytorch_and_the_artifact_are_attacked_alike(small_classifier, artifact, texts):
    on_torch = attack(TorchPredictor(small_classifier), texts)
    on_onnx = attack(OnnxPredictor(artifact, 2), texts)
    assert on_torch == on_onnx
    assert {"succeeded"} <= {outcome for outcome, *_ in on_torch}


def test_textfooler_alike_on_both_and_every_change_is_a_known_word(
    small_classifier, artifact, texts, word_vectors
):
    config = AttackConfig(attack="textfooler", word_vectors=str(word_vectors))
    on_torch = attack(TorchPredictor(small_classifier), texts, config)
    assert on_torch == attack(OnnxPredictor(artifact, 2), texts, config)
    words = set(load_word_vectors(word_vectors, SilentProgress()).words)
    for (outcome, perturbed, *_), original in zip(on_torch, texts.texts, strict=True):
        if outcome != "succeeded":
            assert perturbed == original
            continue
        new = {w.strip(".,!?;:'\"").lower() for w in perturbed.split()} - {
            w.strip(".,!?;:'\"").lower() for w in original.split()
        }
        assert new
        for token in new:
            assert all(part in words for part in token.replace("-", " ").split() if part.isalpha())


def test_an_example_does_not_depend_on_those_before_it(small_classifier, texts):
    predictor = TorchPredictor(small_classifier)
    together = attack(predictor, texts)
    again = attack(predictor, texts)
    assert together == again
    # A first example of another text leaves the outcome of the second as it was.
    swapped = texts.select([3, *range(1, EXAMPLES)])
    assert attack(predictor, swapped)[1:] == together[1:]


def test_another_seed_draws_other_typos(small_classifier, texts):
    predictor = TorchPredictor(small_classifier)
    assert attack(predictor, texts, seed=0) != attack(predictor, texts, seed=1)


def test_the_global_random_states_are_put_back(small_classifier, texts):
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    attack(TorchPredictor(small_classifier), texts.select([0, 1]))
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_textfooler_leaves_the_first_text_of_a_pair_alone(small_classifier, texts, word_vectors):
    # Short ones, so that the second ones decide.
    firsts = ["the film"] * len(texts)
    pairs = TextData(firsts, texts.texts, texts.labels, texts.label_names, "pairs")
    config = AttackConfig(attack="textfooler", word_vectors=str(word_vectors))
    victim = Victim(TorchPredictor(small_classifier), 96)
    examples, _ = attack_victim(victim, pairs, config, 0, SilentProgress())
    changed = [e for e in examples if e.outcome == "succeeded"]
    assert changed
    for example in changed:
        assert example.perturbed == example.text
        assert example.perturbed_pair != example.text_pair


def test_the_stage_writes_figures_that_its_own_examples_give(artifact, critic_quotes, tmp_path):
    config = AttackConfig(attack_examples=EXAMPLES)
    record = attack_directory(
        str(artifact),
        str(critic_quotes / "test.tsv"),
        config,
        Context(
            output=tmp_path / "out",
            columns=ColumnsConfig(max_length=48),
            run=RunConfig(threads=2),
            progress=SilentProgress(),
        ),
    ).model_dump()
    lines = (tmp_path / "out" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    examples = [json.loads(line) for line in lines]
    right = [e for e in examples if e["outcome"] != "skipped"]
    fooled = [e for e in examples if e["outcome"] == "succeeded"]
    assert len(examples) == record["examples"] == EXAMPLES
    assert record["accuracy"] == len(right) / EXAMPLES
    assert record["accuracy_under_attack"] == (len(right) - len(fooled)) / EXAMPLES
    assert record["attack_success_rate"] == len(fooled) / len(right)
    assert record["queries_per_example"] == sum(e["queries"] for e in right) / len(right)
    page = (tmp_path / "out" / "examples.html").read_text(encoding="utf-8")
    assert page.count("<li class=") == EXAMPLES
    stored = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert stored == {key: value for key, value in record.items() if key != "path"}


def test_a_line_separator_in_a_text_does_not_end_its_line(tmp_path):
    odd = dataclasses.replace(example("succeeded"), text="one\u2028two\u0085three", perturbed="one\u2028tw0")
    lines = [json.dumps(dataclasses.asdict(odd), ensure_ascii=False)] * 2
    (tmp_path / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert read_examples(tmp_path) == [odd] * 2


def test_adversarial_texts_really_change_the_prediction(artifact, texts):
    predictor = load_predictor(str(artifact), RunConfig(threads=2), 48)
    victim = Victim(predictor, 48)
    examples, _ = attack_victim(victim, texts, DEEPWORDBUG, 0, SilentProgress())
    for example in examples:
        right = int(victim([example.perturbed]).argmax()) == example.label
        assert right == (example.outcome == "failed")


def example(outcome: str, queries: int = 10) -> AttackedExample:
    return AttackedExample("a", None, "b", None, 0, outcome, queries, queries, 10, 0.1, 0.0)


def test_summary_of_hand_made_examples():
    figures = summarize(
        [example("skipped", 1), example("succeeded", 10), example("failed", 30), example("succeeded", 20)],
        "deepwordbug",
    )
    assert figures.accuracy == 0.75
    assert figures.accuracy_under_attack == 0.25
    assert figures.attack_success_rate == pytest.approx(2 / 3)
    assert figures.queries_per_example == 20


def test_word_budgets_of_hand_made_examples():
    changed = [
        dataclasses.replace(example("succeeded"), words=11, words_changed=1 / 11),
        dataclasses.replace(example("succeeded"), words=11, words_changed=2 / 11),
        dataclasses.replace(example("succeeded"), words=11, words_changed=3 / 11),
        dataclasses.replace(example("failed"), words=11, words_changed=0.0),
        dataclasses.replace(example("skipped"), words=11, words_changed=0.0),
    ]
    # 0.55, 1.1 and 11 words, rounded up.
    budgets = under_word_budgets(changed, [0.05, 0.1, 1.0])
    assert [budget.accuracy_under_attack for budget in budgets] == [0.6, 0.4, 0.2]
    assert all(b.interval.low < b.accuracy_under_attack < b.interval.high for b in budgets)


outcomes = st.tuples(st.sampled_from(["succeeded", "failed", "skipped"]), st.integers(1, 60), st.data())


@given(outcomes, st.floats(0.02, 1))
def test_the_budgets_that_an_example_holds_are_those_at_which_it_holds_out(drawn, longest):
    outcome, words, data = drawn
    changed = data.draw(st.integers(1, words)) if outcome == "succeeded" else 0
    attacked = dataclasses.replace(example(outcome), words=words, words_changed=changed / words)
    shares = (np.arange(4000) + 0.5) / 4000 * longest
    held = np.mean([attacked.holds_out(share) for share in shares])
    assert attacked.held_budgets(longest) == pytest.approx(held, abs=1e-3)


def test_the_mean_accuracy_of_hand_made_examples():
    changed = [
        dataclasses.replace(example("succeeded"), words=10, words_changed=0.1),
        dataclasses.replace(example("succeeded"), words=10, words_changed=0.2),
        dataclasses.replace(example("succeeded"), words=10, words_changed=0.9),
        dataclasses.replace(example("failed"), words=10, words_changed=0.0),
        dataclasses.replace(example("skipped"), words=10, words_changed=0.0),
    ]
    found = mean_accuracy(changed, 0.4)
    assert found.mean == pytest.approx((0 + 0.25 + 1 + 1 + 0) / 5)
    assert found.interval.low < found.mean < found.interval.high
    assert found.longest_budget == 0.4


def test_nothing_attempted_has_no_success_rate():
    figures = summarize([example("skipped")], "deepwordbug")
    assert figures.accuracy == figures.accuracy_under_attack == 0
    assert figures.attack_success_rate is None
    assert figures.queries_per_example is None


def test_no_examples_is_an_error():
    with pytest.raises(ValueError, match="no examples"):
        summarize([], "deepwordbug")


def test_a_missing_encoder_is_refused(tmp_path):
    with pytest.raises(UserError, match="sentence encoder"):
        SentenceEncoder(tmp_path, torch.device("cpu"))


def test_sentence_embeddings_have_unit_length_whatever_the_batch():
    encoder = SentenceEncoder(encoder_directory(), torch.device("cpu"))
    texts = ["a fine film", "dull", "a much longer sentence about a film that nobody has seen yet"]
    together = encoder.encode(texts)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(together, torch.cat([encoder.encode([t]) for t in texts]), atol=1e-5, rtol=0)


def test_tags_are_universal_and_one_a_word():
    assert universal_tags(["the", "film", "runs", "slowly"]) == ["DET", "NOUN", "VERB", "ADV"]
    odd = ["7", "o'clock", "x_y", "don't", "mid-90s", "@home", "l'été"]
    assert len(universal_tags(odd)) == len(odd)


def test_the_stop_words_are_words():
    words = STOPWORDS.read_text().split()
    assert len(words) == len(set(words)) > 150
    assert {"the", "and", "not"} <= set(words)


@pytest.mark.slow
def test_textattack_is_imported_without_network_and_leaves_the_environment(tmp_path):
    """In a process of its own, since this one has it imported already."""
    script = (
        "import os, socket\n"
        "def refuse(*args, **kwargs):\n"
        "    raise AssertionError(f'network: {args}')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from compressor.attacks.resources import import_textattack\n"
        "before = dict(os.environ)\n"
        "textattack = import_textattack()\n"
        "assert dict(os.environ) == before\n"
        "words = textattack.constraints.pre_transformation.StopwordModification().stopwords\n"
        "assert {'the', 'and'} <= words\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "COMPRESS_CACHE": str(tmp_path), "HOME": str(tmp_path)},
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / ".cache" / "textattack").exists()
