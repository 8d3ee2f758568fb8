"""Stopped work goes on where what decides its result is the same, and says what keeps it from going on."""

import shutil

import numpy as np
import pytest
from stopping import StopBefore, StoppedError

from compressor.attacks.runner import _Log
from compressor.attacks.stage import attack_decides
from compressor.config.recipe import Recipe
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.lexicon import word_vectors
from compressor.lexicon.word_vectors import encoded_key
from compressor.models import reuse
from compressor.options import (
    AttackConfig,
    ColumnsConfig,
    DataConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
    SoupConfig,
)
from compressor.pipeline.run import run_recipe
from compressor.pruning.interface import prune_directory
from compressor.system import jobs
from compressor.system.checkpoint import Checkpoint, checkpoint_folder
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.system.files import read_json
from compressor.training import soup_stage as souping
from compressor.training.finetune_stage import training_decides

PARTS = 8


class Heard(StopBefore):
    """Keeps the lines that are logged."""

    def __init__(self, work=None):
        super().__init__(None if work else -1, work or "")
        self.lines = []

    def log(self, message):
        self.lines.append(message)
        super().log(message)


@pytest.fixture
def texts(critic_quotes, tmp_path):
    lines = (critic_quotes / "small.tsv").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "few.tsv"
    path.write_text("\n".join(lines[:17]) + "\n", encoding="utf-8")
    return path


def stop_after(monkeypatch, parts):
    """Make the save of the part after the first `parts` end the run."""
    save, saved = Checkpoint.save, []

    def limited(self, name, part):
        if len(saved) == parts:
            raise StoppedError
        saved.append(name)
        save(self, name, part)

    monkeypatch.setattr(Checkpoint, "save", limited)
    return saved


def move_to_another_machine(monkeypatch):
    own = jobs.describe_environment
    changes = {"platform": "another kernel", "cores": 96, "threads": 64, "processor": "another"}
    monkeypatch.setattr(jobs, "describe_environment", lambda run: own(run) | changes)


def prune(model, texts, output, progress=None, **options):
    return prune_directory(
        str(model),
        str(texts),
        PruneConfig(algorithm="wanda", sparsity=0.8),
        Context(
            output=output,
            columns=ColumnsConfig(max_length=24),
            run=RunConfig(device="cpu", threads=2),
            **{"force": False, "progress": progress or SilentProgress()} | options,
        ),
    ).model_dump()


@pytest.fixture
def stopped(small_classifier_dir, texts, tmp_path, monkeypatch):
    """Model, texts and output of a pruning that was stopped after its fifth part."""
    given = small_classifier_dir, texts, tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(StoppedError):
            prune(*given)
    return given


def test_a_pruning_goes_on_on_another_machine_and_under_other_names(stopped, tmp_path, monkeypatch):
    model, texts, output = stopped
    whole = prune(model, texts, tmp_path / "whole")
    moved = shutil.copytree(model, tmp_path / "moved"), texts.rename(tmp_path / "renamed.tsv"), output
    with monkeypatch.context() as patch:
        move_to_another_machine(patch)
        saved = stop_after(patch, PARTS)
        heard = Heard()
        record = prune(*moved, heard)
    assert len(saved) == PARTS - 5
    assert record["sha256"] == whole["sha256"]
    assert [machine["platform"] for machine in record["began_on"]] == [whole["environment"]["platform"]]
    assert "began_on" not in whole
    assert heard.lines[0].startswith("Going on with what a stopped run left in ")
    assert "cores changed from" in heard.lines[0]


def test_changed_texts_are_told_by_their_file_and_nothing_is_thrown_away(stopped):
    _, texts, output = stopped
    texts.write_text(texts.read_text().replace("film", "movie"))
    with pytest.raises(UserError, match=r"the content of data\.calibration \(.*few\.tsv\) changed.*--force"):
        prune(*stopped)
    assert len(list(checkpoint_folder(output).glob("*.safetensors"))) == 5
    heard = Heard()
    prune(*stopped, heard, force=True)
    assert "is thrown away: the content of data.calibration" in heard.lines[0]


def test_a_run_goes_on_within_a_stage_on_another_machine_and_says_why_it_does_not(
    small_classifier_dir, texts, critic_quotes, tmp_path, monkeypatch
):
    def recipe(seed):
        return Recipe(
            model=str(small_classifier_dir),
            data=DataConfig(calibration=str(texts), test=str(critic_quotes / "test.tsv"), max_length=24),
            run=RunConfig(device="cpu", threads=2, seed=seed),
            prune=PruneConfig(algorithm="wanda", sparsity=0.8),
        )

    def run(seed, folder, progress):
        run_recipe(recipe(seed), folder, force=False, progress=progress)

    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(StoppedError):
            run(0, tmp_path / "run", SilentProgress())
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    heard = Heard("export")
    with monkeypatch.context() as patch:
        move_to_another_machine(patch)
        saved = stop_after(patch, PARTS)
        with pytest.raises(StoppedError):
            run(0, tmp_path / "moved", heard)
    assert len(saved) == PARTS - 5
    assert any(line.startswith("Going on with what a stopped run left") for line in heard.lines)
    assert read_json(tmp_path / "moved" / "pruned" / "pruning.json")["began_on"]

    heard = Heard("export")
    with pytest.raises(StoppedError):
        run(1, tmp_path / "other", heard)
    (line,) = [line for line in heard.lines if "thrown away" in line]
    assert "run.seed changed from 0 to 1" in line


# what decides runs and evaluations of a soup --------------------------------------------------------

DATA = TextData(["a b c"] * 4, None, [0, 1, 0, 1], ["n", "p"], "x.tsv")
CPU = RunConfig(device="cpu")


@pytest.fixture
def resources(tmp_path):
    """A file or a directory for each option that names one."""
    np.savez(tmp_path / "vectors.npz", words=np.array(["a"]), vectors=np.eye(1))
    for name in ("encoder", "masked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_text("weights")
        (tmp_path / name / "README.md").write_text("read")
    (tmp_path / "wordnet").mkdir()
    (tmp_path / "wordnet" / "data.noun").write_text("noun")
    return tmp_path


def attack_of(folder):
    return AttackConfig(
        attack="bertattack",
        word_vectors=str(folder / "vectors.npz"),
        sentence_encoder=str(folder / "encoder"),
        masked_language_model=str(folder / "masked"),
        wordnet=str(folder / "wordnet"),
    )


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("vectors.npz", True),
        ("encoder/model.safetensors", True),
        ("encoder/config.json", True),
        ("encoder/README.md", False),
        ("masked/model.safetensors", True),
        ("masked/vocab.txt", True),
        ("wordnet/data.noun", True),
        ("wordnet/index.noun", True),
    ],
)
def test_the_content_of_a_resource_decides_an_attack_and_its_place_does_not(
    resources, tmp_path_factory, file, counts
):
    before = attack_decides(attack_of(resources), CPU, "f", 24)
    moved = shutil.copytree(resources, tmp_path_factory.mktemp("moved") / "resources")
    assert attack_decides(attack_of(moved), CPU, "f", 24) == before
    path = moved / file
    path.write_bytes((path.read_bytes() if path.is_file() else b"") + b"more")
    assert (attack_decides(attack_of(moved), CPU, "f", 24) != before) is counts


@pytest.mark.parametrize(
    ("file", "counts"), [("model.safetensors", True), ("tokenizer.json", True), ("README.md", False)]
)
def test_word_vectors_are_kept_under_all_that_decides_them(resources, monkeypatch, file, counts):
    encoder = resources / "encoder"
    before = encoded_key(encoder, ["a", "b"])
    assert encoded_key(encoder, ["a", "c"]) != before
    with monkeypatch.context() as patch:
        patch.setattr(word_vectors, "code_version", lambda module: "other")
        assert encoded_key(encoder, ["a", "b"]) != before
    (encoder / file).write_text("more")
    assert (encoded_key(encoder, ["a", "b"]) != before) is counts


def test_an_evaluation_of_a_soup_is_kept_under_all_that_decides_it(resources, monkeypatch):
    class Named(Exception):
        pass

    def name(kind, facts):
        raise Named(kind, jobs.changes({}, facts), facts)

    def named():
        config = SoupConfig(attack=attack_of(resources))
        given = {"output": resources / "out", "columns": ColumnsConfig(), "run": CPU}
        store = souping._RunStore("m", DATA, DATA, config, Context(**given, progress=SilentProgress()), None)
        with pytest.raises(Named) as caught:
            store.evaluated([souping.FinetuningRun(resources, FinetuneConfig(), 0, "ab")], "x")
        return caught.value.args[2]

    monkeypatch.setattr(souping, "name_of_facts", name)
    before = named()
    assert before["run"] == {"seed": 0, "device": "cpu"}
    (resources / "vectors.npz").write_bytes(b"other")
    assert named() != before
    before = named()
    monkeypatch.setattr(reuse, "code_version", lambda module, **given: "other")
    assert named() != before


def test_a_fine_tuning_is_decided_by_data_labels_model_and_more(monkeypatch):
    def of(data=DATA, content="a", run=CPU, length=24, **more):
        return training_decides(FinetuneConfig(), run, {"content": content}, data, length, **more)

    same = TextData(DATA.texts, None, DATA.labels, DATA.label_names, "elsewhere.tsv")
    assert of(same, run=RunConfig(device="cpu", threads=7)) == of()
    others = [
        of(DATA.select([0, 1])),
        of(TextData(DATA.texts, None, DATA.labels, ["p", "n"], "x.tsv")),
        of(content="b"),
        of(run=RunConfig(device="cpu", seed=1)),
        of(length=25),
        of(head_seed=1),
    ]
    monkeypatch.setattr(reuse, "package_versions", lambda names: {"torch": "0"})
    others.append(of())
    monkeypatch.undo()
    assert all(other != of() for other in others)


# damage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", "{}", '{"index": 0}', '{"index": 0, "text": "a", "other": 1}']
)
def test_a_kept_example_that_is_damaged_is_attacked_again(tmp_path, line):
    (tmp_path / "examples.jsonl").write_text(line + "\n")
    heard = []
    assert _Log(DATA, Checkpoint(tmp_path, log=heard.append)).open == [0, 1, 2, 3]
    assert heard == ["1 kept examples are damaged and attacked again"]
