"""Several attacks in one run: what holds under all of them, by hand, by any outcomes, and on real models."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cli import execute
from compressor.attacks.attacker import Attacker
from compressor.attacks.comparison import accuracy_drop
from compressor.attacks.records import (
    AttackedExample,
    mean_accuracy,
    read_examples,
    summarize,
    under_word_budgets,
)
from compressor.attacks.runner import attack_victim
from compressor.attacks.several import under_all
from compressor.attacks.stage import attack_directory
from compressor.commands.tables import attack_table
from compressor.config.recipe import load_recipe
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.options import AttackConfig, ColumnsConfig, RunConfig
from compressor.options.keywords import sort_options
from compressor.system.checkpoint import checkpoint_folder
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.training.soup_stage import check_soup

EXAMPLES = 6
BOTH = AttackConfig(attack="deepwordbug,pruthi", attack_examples=EXAMPLES)


class MarkedVictim:
    """Class 1 if a text has the word marvel or the number 12, class 0 if not."""

    model = None
    name = "marked"
    device = torch.device("cpu")
    max_length = 48
    scored = 0

    def __call__(self, texts):
        ones = torch.tensor([float(bool({"marvel", "12"} & set(text.split()))) for text in texts])
        return torch.stack([1 - ones, ones], dim=1)


def example(outcome, words_changed=0.0, words=10):
    return AttackedExample("a text", None, "a text", None, 1, outcome, 5, 3, words, words_changed, 0.5)


def test_what_holds_under_all_attacks_is_known_by_a_rule():
    # A typo changes one word of four letters or more, CheckList the number; the two are not combined.
    found = {
        "a marvel film": (1, "succeeded", "failed", "succeeded"),
        "12 men": (1, "failed", "succeeded", "succeeded"),
        "a marvel of 12 men": (1, "failed", "failed", "failed"),
        "dull film of 13 men": (0, "failed", "failed", "failed"),
        "a dull film": (1, "skipped", "skipped", "skipped"),
    }
    data = TextData(list(found), None, [label for label, *_ in found.values()], ["0", "1"], "here")
    config = AttackConfig(attack="pruthi,checklist")
    attacked = [attack_victim(MarkedVictim(), data, one, 0, SilentProgress())[0] for one in config.each()]
    together = under_all(attacked)
    for place, examples in enumerate((*attacked, together), 1):
        assert [e.outcome for e in examples] == [outcomes[place] for outcomes in found.values()]
    figures = [summarize(examples, "any") for examples in (*attacked, together)]
    assert [f.accuracy_under_attack for f in figures] == [3 / 5, 3 / 5, 2 / 5]
    assert [f.accuracy for f in figures] == [4 / 5] * 3
    assert figures[2].attack_success_rate == 2 / 4
    assert together[0].perturbed == attacked[0][0].perturbed
    assert together[1].perturbed == attacked[1][1].perturbed
    assert [e.queries for e in together] == [a.queries + b.queries for a, b in zip(*attacked, strict=True)]


@given(st.data(), st.integers(1, 4), st.integers(1, 8))
def test_under_all_is_the_intersection_and_never_above_the_least(data, attacks, examples):
    right = data.draw(st.lists(st.booleans(), min_size=examples, max_size=examples))
    words = data.draw(st.lists(st.integers(1, 30), min_size=examples, max_size=examples))

    def outcome(place):
        if not right[place]:
            return example("skipped", words=words[place])
        changed = data.draw(st.integers(0, words[place]))
        return example("succeeded" if changed else "failed", changed / words[place], words[place])

    parts = [[outcome(place) for place in range(examples)] for _ in range(attacks)]
    together = under_all(parts)
    for share in (0.01, 0.1, 0.3, 0.5, 1.0):
        held = [[e.holds_out(share) for e in part] for part in parts]
        assert [e.holds_out(share) for e in together] == [all(column) for column in zip(*held, strict=True)]
    least = min(summarize(part, "any").accuracy_under_attack for part in parts)
    assert summarize(together, "any").accuracy_under_attack <= least
    assert mean_accuracy(together, 0.3).mean <= min(mean_accuracy(part, 0.3).mean for part in parts) + 1e-12
    budgets = [under_word_budgets(part, [0.2])[0].accuracy_under_attack for part in (together, *parts)]
    assert budgets[0] <= min(budgets[1:])


def test_attacks_on_other_examples_are_no_attacks_on_the_same():
    other = dataclasses.replace(example("failed"), text="another text")
    with pytest.raises(ValueError, match="other examples"):
        under_all([[example("failed")], [other]])
    with pytest.raises(ValueError, match="shorter"):
        under_all([[example("failed")], []])


def test_what_input_reduction_leaves_of_a_text_that_holds_is_not_told_for_all():
    reduced = dataclasses.replace(example("failed", 0.5), perturbed="text")
    (together,) = under_all([[reduced], [example("failed")]])
    assert (together.perturbed, together.words_changed) == ("a text", 0.0)


@pytest.fixture(scope="module")
def attack(critic_quotes):
    def attack(model, output, config=BOTH, against=None, **options):
        context = Context(
            output=output,
            columns=ColumnsConfig(max_length=48),
            run=RunConfig(device="cpu", threads=2),
            progress=SilentProgress(),
            **options,
        )
        return attack_directory(str(model), str(critic_quotes / "test.tsv"), config, context, against=against)

    return attack


@pytest.fixture(scope="module")
def dense(attack, small_classifier_dir, tmp_path_factory):
    output = tmp_path_factory.mktemp("several") / "dense"
    return attack(small_classifier_dir, output)


def timeless(examples):
    return [dataclasses.replace(example, seconds=0.0) for example in examples]


def test_each_of_several_attacks_leaves_what_it_leaves_alone(attack, dense, small_classifier_dir, tmp_path):
    assert [one.attack for one in dense.attacks] == ["deepwordbug", "pruthi"]
    for one, config in zip(dense.attacks, BOTH.each(), strict=True):
        alone = attack(small_classifier_dir, tmp_path / config.attack, config)
        assert alone.attacks == []
        there = dense.path / config.attack
        assert json.loads((there / "robustness.json").read_text()) == json.loads(
            (tmp_path / config.attack / "robustness.json").read_text()
        )
        assert timeless(read_examples(there)) == timeless(read_examples(tmp_path / config.attack))
        assert (there / "examples.html").is_file()
        assert one.accuracy_under_attack == alone.accuracy_under_attack
        assert one.accuracy_under_attack_interval == alone.accuracy_under_attack_interval


def test_the_record_of_all_is_that_of_the_intersection(dense):
    parts = [read_examples(dense.path / one.attack) for one in dense.attacks]
    together = read_examples(dense.path)
    assert timeless(together) == timeless(under_all(parts))
    assert dense.attack == "deepwordbug,pruthi"
    assert dense.accuracy_under_attack == summarize(together, "any").accuracy_under_attack
    # Pruthi's figures within word budgets are not known.
    assert dense.word_budgets == [] and dense.mean_accuracy_under_attack is None
    assert "Accuracy under pruthi" in (dense.path / "examples.html").read_text()


def test_two_models_are_compared_under_all_attacks_and_under_each(
    attack, dense, small_artifact_dir, tmp_path
):
    record = attack(small_artifact_dir, tmp_path / "artifact", against=dense.path)
    for against, place in (
        (record.against, ""), *((one.against, one.attack) for one in record.attacks)
    ):  # fmt: skip
        own, other = (read_examples(folder / place) for folder in (record.path, dense.path))
        expected = dataclasses.asdict(accuracy_drop(other, own))
        assert against["accuracy_under_attack_drop"] == expected
    console = Console(width=120)
    with console.capture() as shown:
        console.print(attack_table(record.model_dump()))
    for line in ("under all attacks", "under pruthi", "drop of accuracy under all attacks"):
        assert line in shown.get()
    # One of them alone is held against the same attack among several.
    alone = attack(small_artifact_dir, tmp_path / "alone", BOTH.each()[1], against=dense.path / "pruthi")
    assert alone.against == record.attacks[1].against
    with pytest.raises(UserError, match="options is"):
        attack(small_artifact_dir, tmp_path / "other", BOTH.each()[1], against=dense.path)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_run_goes_on_in_the_attack_that_it_was_in(
    attack, dense, small_classifier_dir, tmp_path, monkeypatch, processes
):
    class Stopped(Exception):
        pass

    done, own = [], Attacker.attack

    def limited(self, index, *given):
        if len(done) == EXAMPLES + 2:
            raise Stopped
        done.append(index)
        return own(self, index, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Attacker, "attack", limited)
        with pytest.raises(Stopped):
            attack(small_classifier_dir, tmp_path / "out")
    kept = checkpoint_folder(tmp_path / "out")
    lines = [(kept / f"{name}.examples.jsonl").read_text().count("\n") for name in ("deepwordbug", "pruthi")]
    assert lines == [EXAMPLES, 2]
    again = []

    def counted(self, index, *given):
        again.append(index)
        return own(self, index, *given)

    monkeypatch.setattr(Attacker, "attack", counted)
    record = attack(small_classifier_dir, tmp_path / "out", processes=processes)
    # Those of other processes are counted there.
    assert again == (list(range(2, EXAMPLES)) if processes == 1 else [])
    assert record.model_dump() | {"path": None} == dense.model_dump() | {"path": None}
    assert timeless(read_examples(tmp_path / "out")) == timeless(read_examples(dense.path))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_names_are_a_text_with_commas_or_a_list(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    for written in ("deepwordbug, pwws", "[deepwordbug, pwws]"):
        recipe.write_text(
            f"model: m\ndata: {{calibration: c.tsv, test: t.tsv}}\nattack:\n  attack: {written}\n"
        )
        assert load_recipe(recipe).attack.attack == "deepwordbug,pwws"
    assert AttackConfig(attack="pwws").each() == [AttackConfig(attack="pwws")]
    assert [one.attack for one in AttackConfig(attack="pwws,pruthi").each()] == ["pwws", "pruthi"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("pwws,pwws", "pwws is named more than once"),
        ("pwws,", "'' is not registered"),
        ("pwws,textfoler", "did you mean 'textfooler'"),
        ([], "not registered"),
        ([1], "string"),
    ],
)
def test_names_that_are_none_are_refused(names, said):
    with pytest.raises(UserError, match=f"attack: .*{said}"):
        sort_options([AttackConfig], {"attack": names})


def test_options_go_to_the_attack_that_has_them():
    config = AttackConfig(attack="pwws,badcharacters", attack_options={"kind": "deletions"})
    pwws, characters = config.each()
    assert pwws == AttackConfig(attack="pwws")
    assert characters == AttackConfig(attack="badcharacters", attack_options={"kind": "deletions"})
    with pytest.raises(UserError, match="no such options"):
        sort_options([AttackConfig], {"attack": "pwws,pruthi", "attack_options": {"kind": "deletions"}})


def test_figures_within_word_budgets_need_all_attacks_to_have_them():
    assert AttackConfig(attack="pwws,textfooler").figure == "mean_accuracy_under_attack"
    assert AttackConfig(attack="pwws,textfooler").exact_word_budgets == [0.05, 0.1, 0.15, 0.2]
    assert AttackConfig(attack="pwws,pruthi").figure == "accuracy_under_attack"
    assert AttackConfig(attack="pwws,pruthi").exact_word_budgets == []


def test_a_soup_takes_one_attack():
    from compressor.options import SoupConfig

    with pytest.raises(UserError, match="pwws,pruthi are several"):
        check_soup(SoupConfig(attack=AttackConfig(attack="pwws,pruthi")))


def test_the_command_runs_several(small_classifier_dir, critic_quotes, tmp_path, capsys):
    command = ["attack", str(small_classifier_dir), "--data", str(critic_quotes / "test.tsv"), "--json"]
    command += ["--attack", "pruthi,checklist", "--attack-examples", "2", "--max-length", "48"]
    assert execute([*command, "--device", "cpu", "--output", str(tmp_path / "out")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [one["attack"] for one in record["attacks"]] == ["pruthi", "checklist"]
    assert record["accuracy_under_attack"] <= min(one["accuracy_under_attack"] for one in record["attacks"])
    assert "names_and_locations" in record["resources"]
