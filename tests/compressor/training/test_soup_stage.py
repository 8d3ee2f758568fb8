"""The soup stage on a small encoder: what is averaged, what is kept, and that nothing is made twice."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from rich.console import Console
from stopping import StopBefore, StoppedError

from compressor.commands.tables import soup_table
from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.models.classifier import load_classifier, load_tokenizer, weights_fingerprint
from compressor.models.normalization.tokenizers import has_normalization
from compressor.models.predictors import TorchPredictor, predict
from compressor.options import AttackConfig, ColumnsConfig, RunConfig, SoupConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.system.files import read_json, read_tensors
from compressor.training import checkpoint as training_checkpoint
from compressor.training.soup import Score, greedy_soup
from compressor.training.soup_stage import runs_folder, soup_directory

COLUMNS = ColumnsConfig(max_length=48)
RUN = RunConfig(device="cpu", threads=2)
CONFIG = SoupConfig(
    runs=2,
    learning_rates=[3e-4, 1e-3],
    epoch_counts=[1],
    adversarial_step_counts=[0, 2],
    substituted_shares=[0.0],
    accuracy_tolerance=0.5,
    holdout_examples=40,
    attack=AttackConfig(attack_examples=8, max_words_changed=0.2),
)


class Listener(SilentProgress):
    """Hears what was begun."""

    def __init__(self):
        self.heard = []

    def log(self, message):
        self.heard.append(message)

    def track(self, items, description, *settings, **named):
        self.heard.append(description)
        yield from items


def soup(data, encoder, output, config=CONFIG, progress=None, **options):
    return soup_directory(
        str(encoder),
        str(data),
        config,
        Context(
            output=output,
            columns=COLUMNS,
            run=RUN,
            force=True,
            progress=progress or SilentProgress(),
            **options,
        ),
    ).model_dump()


def training_record(own):
    return read_json(Path(own["directory"]) / "training.json")


@pytest.fixture(scope="module")
def made(critic_quotes, small_encoder_dir, tmp_path_factory):
    """A finished soup: its directory and record."""
    output = tmp_path_factory.mktemp("soup") / "dense"
    return output, soup(critic_quotes / "small.tsv", small_encoder_dir, output)


@pytest.fixture
def copied(made, tmp_path):
    """The same, to be changed at will."""
    output = tmp_path / made[0].name
    shutil.copytree(made[0], output)
    shutil.copytree(runs_folder(made[0]), runs_folder(output))
    return output


def test_the_classifier_is_the_mean_of_the_kept_runs(made):
    output, record = made
    kept = [
        load_classifier(record["runs"][place]["directory"]).model.state_dict() for place in record["kept"]
    ]
    for name, value in load_classifier(str(output)).model.state_dict().items():
        mean = sum(model[name].double() for model in kept) / len(kept)
        assert torch.allclose(value.double(), mean, rtol=1e-6, atol=1e-8), name


def test_the_record_is_a_greedy_choice_by_accuracy_under_attack(made):
    _, record = made
    scores = {}
    kept = ()
    for trial in record["trials"]:
        scores[(*kept, trial["run"])] = trial["score"]
        kept = (*kept, trial["run"]) if trial["kept"] else kept
    alone = [Score(own["accuracy"], own["accuracy_under_attack"]) for own in record["runs"]]
    trials = greedy_soup(alone, lambda places: Score(**scores[places]), CONFIG.accuracy_tolerance)
    assert [asdict(trial) for trial in trials] == record["trials"]
    assert record["kept"] == list(kept)
    assert record["accuracy_under_attack"] == scores[kept]["robustness"]
    assert any(trial["score"] for trial in record["trials"][1:])
    assert record == read_json(made[0] / "soup.json") | {key: record[key] for key in ("path", "sha256")}


def test_runs_can_be_chosen_by_the_mean_over_word_budgets(copied, critic_quotes, small_encoder_dir):
    pwws = AttackConfig(attack="pwws", attack_examples=8)
    config = CONFIG.model_copy(update={"attack": pwws, "chosen_by": "mean_accuracy_under_attack"})
    heard = Listener()
    record = soup(critic_quotes / "small.tsv", small_encoder_dir, copied, config, heard)
    alone = [own["mean_accuracy_under_attack"]["mean"] for own in record["runs"]]
    first, *_ = record["trials"]
    assert first["score"]["robustness"] == alone[first["run"]] == max(alone)
    assert any("mean accuracy under attack" in line for line in heard.heard)
    console = Console(width=160)
    with console.capture() as shown:
        console.print(soup_table(record))
    assert "mean under attack" in shown.get()


def test_the_mean_over_word_budgets_needs_an_attack_that_tells_it(critic_quotes, small_encoder_dir, tmp_path):
    attack = CONFIG.attack.model_copy(update={"attack": "pruthi"})
    config = CONFIG.model_copy(update={"chosen_by": "mean_accuracy_under_attack", "attack": attack})
    with pytest.raises(UserError, match="pruthi does not report mean_accuracy_under_attack; use --chosen-by"):
        soup(critic_quotes / "small.tsv", small_encoder_dir, tmp_path / "out", config)
    assert not runs_folder(tmp_path / "out").exists()


def test_the_held_out_texts_are_not_trained_on(made, critic_quotes):
    _, record = made
    data = load_text_data(str(critic_quotes / "small.tsv"), COLUMNS, "train")
    training, holdout = data.hold_out(40, RUN.seed)
    assert record["holdout"] == {"examples": 40, "fingerprint": holdout.fingerprint}
    assert not set(training.texts) & set(holdout.texts)
    for own in record["runs"]:
        assert training_record(own)["data"] == training.fingerprint


def test_accuracy_is_that_on_all_held_out_texts(made, critic_quotes):
    output, record = made
    holdout = load_text_data(str(critic_quotes / "small.tsv"), COLUMNS, "train").hold_out(40, RUN.seed)[1]
    answers = predict(TorchPredictor(load_classifier(str(output))), holdout, 48).argmax(axis=1)
    right = sum(int(a) == b for a, b in zip(answers, holdout.class_labels, strict=True))
    assert record["accuracy"] == right / 40
    assert record["examples"] == 8


def test_the_runs_share_the_start_of_their_heads_and_differ_in_their_weights(made):
    _, record = made
    assert [own["seed"] for own in record["runs"]] == [0, 1]
    assert len({own["sha256"] for own in record["runs"]}) == 2
    assert {training_record(own)["head_seed"] for own in record["runs"]} == {0}


def test_a_second_command_makes_nothing_again(copied, made, critic_quotes, small_encoder_dir):
    listener = Listener()
    record = soup(critic_quotes / "small.tsv", small_encoder_dir, copied, progress=listener)
    assert record["sha256"] == made[1]["sha256"]
    assert all("is done already" in line for line in listener.heard), listener.heard


def test_more_runs_of_the_grid_take_those_that_are_there(copied, critic_quotes, small_encoder_dir):
    listener = Listener()
    config = CONFIG.model_copy(update={"attack": AttackConfig(attack_examples=8, max_words_changed=0.4)})
    soup(critic_quotes / "small.tsv", small_encoder_dir, copied, config, listener)
    assert not any(line.startswith("Fine-tuning") for line in listener.heard)
    assert any(line.startswith("deepwordbug on") for line in listener.heard)


def test_a_stopped_attack_goes_on_behind_its_last_example(copied, made, critic_quotes, small_encoder_dir):
    evaluation = next(path for path in runs_folder(copied).glob("evaluation-*"))
    (evaluation / "soup.json").unlink()
    lines = (evaluation / "examples.jsonl").read_text(encoding="utf-8").split("\n")
    (evaluation / "examples.jsonl").write_text("\n".join(lines[:7]) + "\n" + lines[7][:20], encoding="utf-8")
    record = soup(critic_quotes / "small.tsv", small_encoder_dir, copied)
    assert record["sha256"] == made[1]["sha256"]
    after = (evaluation / "examples.jsonl").read_text(encoding="utf-8").split("\n")
    assert after[:7] == lines[:7]
    assert len(after) == len(lines)


def test_several_processes_choose_alike(copied, made, critic_quotes, small_encoder_dir):
    evaluations = sorted(runs_folder(copied).glob("evaluation-*"))
    shutil.rmtree(evaluations[0])
    record = soup(critic_quotes / "small.tsv", small_encoder_dir, copied, processes=2)
    assert record["trials"] == made[1]["trials"]
    assert record["sha256"] == weights_fingerprint(str(made[0]))


def test_some_runs_see_words_replaced(made, critic_quotes, small_encoder_dir, tmp_path, vectors_file):
    changes = {"substituted_shares": [0.0, 0.5], "substitution_vectors": vectors_file}
    config = CONFIG.model_copy(update=changes)
    record = soup(critic_quotes / "small.tsv", small_encoder_dir, tmp_path / "dense", config)
    assert sorted(own["options"]["substituted_share"] for own in record["runs"]) == [0.0, 0.5]
    for own in record["runs"]:
        named = training_record(own)["substitution_vectors"]
        assert (named is not None) == (own["options"]["substituted_share"] > 0)
    assert {own["sha256"] for own in record["runs"]} != {own["sha256"] for own in made[1]["runs"]}


def test_runs_and_average_normalize_texts(critic_quotes, small_encoder_dir, tmp_path):
    lines = (critic_quotes / "small.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "few.tsv").write_text("\n".join(lines[:140]) + "\n", encoding="utf-8")
    attack = AttackConfig(attack_examples=2, max_words_changed=0.1, query_budget=10)
    config = CONFIG.model_copy(
        update={"normalize_text": True, "adversarial_step_counts": [0], "attack": attack}
    )
    record = soup(tmp_path / "few.tsv", small_encoder_dir, tmp_path / "soup", config)
    for directory in (tmp_path / "soup", *(own["directory"] for own in record["runs"])):
        assert has_normalization(load_tokenizer(str(directory)))


def test_too_few_texts_are_one_line(tmp_path, critic_quotes, small_encoder_dir):
    config = CONFIG.model_copy(update={"holdout_examples": 600})
    with pytest.raises(UserError, match=r"has 600 examples, of which 600 would be held out"):
        soup(critic_quotes / "small.tsv", small_encoder_dir, tmp_path / "soup", config)
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_stopped_goes_on(made, critic_quotes, small_encoder_dir, tmp_path, monkeypatch):
    given = critic_quotes / "small.tsv", small_encoder_dir, tmp_path / "dense"
    folder = runs_folder(given[-1])
    with monkeypatch.context() as patch:
        patch.setattr(training_checkpoint, "SECONDS_BETWEEN", 0.0)
        with pytest.raises(StoppedError):
            soup(*given, progress=StopBefore(3, "Fine-tuning"))
    (state,) = folder.glob("run-*.progress/training.safetensors")
    assert read_tensors(state, "cpu")[1]["facts"] == '{"steps": 3}'
    with pytest.raises(StoppedError):
        soup(*given, progress=StopBefore(None, "Run 2 of 2"))
    (run,) = folder.glob("run-*")
    assert weights_fingerprint(str(run)) == made[1]["runs"][0]["sha256"]
