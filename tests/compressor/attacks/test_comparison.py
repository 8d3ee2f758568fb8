"""Paired comparison and replay: by hand-made examples, by a rule, and on real models."""

import dataclasses
import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from compressor.attacks.comparison import accuracy_drop, replay
from compressor.attacks.records import AttackedExample, read_examples, summarize
from compressor.attacks.runner import attack_victim
from compressor.attacks.stage import attack_directory
from compressor.commands.tables import attack_table
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.options import AttackConfig, ColumnsConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context

DEEPWORDBUG = AttackConfig(attack="deepwordbug", attack_examples=8)
COLUMNS = ColumnsConfig(max_length=48)


class RuleVictim:
    """Class 1 if the text has a word, class 0 if not."""

    model = None
    name = "rule"
    device = torch.device("cpu")
    max_length = 64
    scored = 0

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, texts):
        ones = torch.tensor([float(self.word in text.lower().split()) for text in texts])
        return torch.stack([1 - ones, ones], dim=1)


def example(outcome, text="a good film", perturbed="a goood film", label=1, pair=None):
    return AttackedExample(text, pair, perturbed, pair, label, outcome, 10, 10, 10, 0.1, 0.0)


def data_of(texts, labels):
    return TextData(texts, None, labels, ["0", "1"], "here")


def test_a_classifier_by_rule_on_one_word_is_as_robust_as_theory_says():
    # A typo in the word always turns class 1; no typo makes the word where it is not. The last
    # text has the wrong label, so there is nothing to attack.
    texts = [
        "a good film",
        "good acting all around",
        "a dull evening",
        "the plot drags on",
        "so good",
        "slow",
    ]
    labels = [1, 1, 0, 0, 1, 1]
    victim = RuleVictim("good")
    examples, _ = attack_victim(victim, data_of(texts, labels), DEEPWORDBUG, 0, SilentProgress())
    assert [e.outcome for e in examples] == ["succeeded"] * 2 + ["failed"] * 2 + ["succeeded", "skipped"]
    figures = summarize(examples, "deepwordbug")
    assert figures.accuracy == 5 / 6
    assert figures.accuracy_under_attack == 2 / 6
    assert figures.attack_success_rate == 3 / 5
    for succeeded in (e for e in examples if e.outcome == "succeeded"):
        assert "good" not in succeeded.perturbed.lower().split()


def test_the_drop_counts_the_examples_that_hold_out_on_one_model_alone():
    dense = [example(o) for o in ("failed", "failed", "failed", "succeeded", "skipped", "succeeded")]
    pruned = [example(o) for o in ("failed", "succeeded", "skipped", "failed", "succeeded", "succeeded")]
    found = accuracy_drop(dense, pruned)
    assert (found.only_first, found.only_second, found.examples) == (2, 1, 6)
    assert found.difference == pytest.approx(1 / 6)


def test_a_drop_at_the_floor_shows_where_fewer_words_may_change():
    # Ten words each: the dense model falls to 3, 2 and 3 changed words, the pruned one to 1, 2 and 1.
    dense = [dataclasses.replace(example("succeeded"), words_changed=share) for share in (0.3, 0.2, 0.3)]
    pruned = [dataclasses.replace(example("succeeded"), words_changed=share) for share in (0.1, 0.2, 0.1)]
    assert accuracy_drop(dense, pruned).difference == 0
    assert accuracy_drop(dense, pruned, 0.1).difference == pytest.approx(2 / 3)
    found = accuracy_drop(dense, pruned, 0.2)
    assert (found.only_first, found.only_second, found.examples) == (2, 0, 3)
    assert accuracy_drop(dense, pruned, 0.3).difference == 0


@given(
    outcome=st.sampled_from(["skipped", "failed", "succeeded"]),
    words=st.integers(1, 400),
    data=st.data(),
)
def test_an_example_holds_out_the_less_the_more_words_may_change(outcome, words, data):
    changed = data.draw(st.integers(1, words))
    one = dataclasses.replace(example(outcome), words=words, words_changed=changed / words)
    assert one.holds_out() == (outcome == "failed")
    for allowed in range(1, words + 1):
        # Half a word less than allowed, which is rounded up.
        held = one.holds_out((allowed - 0.5) / words)
        assert held == (outcome == "failed" or (outcome == "succeeded" and allowed < changed))


def test_only_successes_on_texts_that_are_right_here_are_replayed():
    examples = [
        example("succeeded"),  # fooled: the word is gone
        example("succeeded", perturbed="a good movie"),  # not fooled
        example("succeeded", text="a fine film", perturbed="a fin film"),  # wrong here before
        example("failed", perturbed="a film"),
        example("skipped", perturbed="a film"),
    ]
    found = replay(examples, RuleVictim("good"))
    assert (found.texts, found.fooled, found.rate) == (2, 1, 0.5)
    assert found.interval.low < 0.5 < found.interval.high
    assert replay(examples[3:], RuleVictim("good")).rate is None
    assert replay(examples[2:3], RuleVictim("good")).rate is None


@pytest.fixture(scope="module")
def attacked(small_classifier_dir, critic_quotes, tmp_path_factory):
    """The dense classifier under attack: the function that attacks a model, and its output."""

    def attack(model, output, config=DEEPWORDBUG, seed=0, against=None):
        return attack_directory(
            str(model),
            str(critic_quotes / "test.tsv"),
            config,
            Context(
                output=output,
                columns=COLUMNS,
                run=RunConfig(seed=seed, threads=2),
                force=True,
                progress=SilentProgress(),
            ),
            against=against,
        ).model_dump()

    output = tmp_path_factory.mktemp("attacked") / "dense"
    attack(small_classifier_dir, output)
    return attack, output


def test_the_artifact_is_held_against_the_dense_model(attacked, small_artifact_dir, tmp_path):
    attack, dense = attacked
    record = attack(small_artifact_dir, tmp_path / "artifact", against=dense)
    examples, others = read_examples(tmp_path / "artifact"), read_examples(dense)
    against = record["against"]
    held = [[e.outcome == "failed" for e in run] for run in (others, examples)]
    assert against["accuracy_under_attack_drop"]["difference"] == (sum(held[0]) - sum(held[1])) / 8
    assert against["model"] == json.loads((dense / "robustness.json").read_text())["model"]
    assert 0 <= against["transfer"]["fooled"] <= against["transfer"]["texts"] <= 8


def test_a_model_is_as_robust_as_itself_and_fooled_by_all_its_own_attacks(
    attacked, small_classifier_dir, tmp_path
):
    attack, dense = attacked
    against = attack(small_classifier_dir, tmp_path / "again", against=dense)["against"]
    assert against["accuracy_under_attack_drop"]["difference"] == 0
    assert against["accuracy_under_attack_drop"]["p_value"] == 1
    assert against["mean_accuracy_under_attack_drop"]["difference"] == 0
    assert against["transfer"]["rate"] == 1
    assert against["transfer"]["texts"] > 0


def test_two_models_are_compared_for_each_word_budget(
    attacked, small_classifier_dir, small_artifact_dir, tmp_path
):
    attack, _ = attacked
    config = AttackConfig(attack="pwws", attack_examples=8, word_budgets=[0.1, 0.2])
    dense = attack(small_classifier_dir, tmp_path / "dense", config)
    artifact = attack(small_artifact_dir, tmp_path / "artifact", config, against=tmp_path / "dense")
    drops = artifact["against"]["word_budgets"]
    assert [drop["max_words_changed"] for drop in drops] == [0.1, 0.2]
    for drop, before, after in zip(drops, dense["word_budgets"], artifact["word_budgets"], strict=True):
        difference = before["accuracy_under_attack"] - after["accuracy_under_attack"]
        assert drop["accuracy_under_attack_drop"]["difference"] == pytest.approx(difference)
    means = [record["mean_accuracy_under_attack"]["mean"] for record in (dense, artifact)]
    mean_drop = artifact["against"]["mean_accuracy_under_attack_drop"]
    assert mean_drop["difference"] == pytest.approx(means[0] - means[1])
    assert mean_drop["examples"] == 8
    console = Console(width=120)
    with console.capture() as shown:
        console.print(attack_table(artifact))
    assert shown.get().count("of the words change (p = ") == 2
    assert shown.get().count("mean over 0 to 30% of the words") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed is 0, here it is 1"),
        ({"config": DEEPWORDBUG.model_copy(update={"attack_examples": 7})}, "options is"),
    ],
)
def test_another_attack_is_refused_before_any_query(
    attacked, small_classifier_dir, tmp_path, monkeypatch, changes, message
):
    attack, dense = attacked
    monkeypatch.setattr("compressor.attacks.runner.attack_victim", None)
    with pytest.raises(UserError, match=message):
        attack(small_classifier_dir, tmp_path / "out", against=dense, **changes)
    assert not (tmp_path / "out").exists()


def test_a_directory_without_an_attack_is_refused(attacked, small_classifier_dir, tmp_path):
    attack, _ = attacked
    with pytest.raises(UserError, match=r"holds no robustness\.json; give the output of compress attack"):
        attack(small_classifier_dir, tmp_path / "out", against=tmp_path)


def test_other_examples_are_refused(attacked, small_classifier_dir, tmp_path):
    attack, dense = attacked
    other = tmp_path / "other"
    other.mkdir()
    (other / "robustness.json").write_text((dense / "robustness.json").read_text())
    lines = [dataclasses.asdict(e) | {"text": "another"} for e in read_examples(dense)]
    (other / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.raises(UserError, match="other examples were attacked"):
        attack(small_classifier_dir, tmp_path / "out", against=other)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"words": [None]}, "words: "),
        ({"words": float("inf")}, "Infinity is no number of JSON"),
        ({"words_changed": float("nan")}, "NaN is no number of JSON"),
        ({"words_changed": True}, "words_changed: "),
        ({"label": "0"}, "label: "),
        ({"outcome": "won"}, "outcome: "),
        ({"cosine": "high"}, "cosine: "),
        ({"perturbed": None}, "perturbed: "),
        ({"more": 1}, "more: "),
    ],
)
def test_a_damaged_example_of_the_other_is_named_before_the_attack(
    attacked, small_classifier_dir, tmp_path, changes, problem
):
    attack, dense = attacked
    other = tmp_path / "other"
    shutil.copytree(dense, other)
    lines = [dataclasses.asdict(example) for example in read_examples(dense)]
    lines[-1].update(changes)
    (other / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.raises(
        UserError, match=rf"examples\.jsonl: is no record of attacked examples.*: .*{problem}"
    ):
        attack(small_classifier_dir, tmp_path / "out", against=other)
    assert {path.name for path in tmp_path.iterdir()} == {"other"}


def test_a_record_of_the_other_that_is_no_object_is_named(attacked, small_classifier_dir, tmp_path):
    attack, dense = attacked
    shutil.copytree(dense, tmp_path / "other")
    (tmp_path / "other" / "robustness.json").write_text("[]")
    with pytest.raises(UserError, match=r"robustness\.json: is not a record of an attack"):
        attack(small_classifier_dir, tmp_path / "out", against=tmp_path / "other")
