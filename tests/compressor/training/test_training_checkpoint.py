"""A training that is stopped anywhere goes on to the bits of one in a single piece."""

import pytest
import torch
from stopping import StopBefore, StoppedError

from compressor.errors import UserError
from compressor.models.batching import encode
from compressor.models.classifier import encoder_linears, load_classifier
from compressor.options import ColumnsConfig, FinetuneConfig, RunConfig
from compressor.pruning.patterns import Unstructured
from compressor.system.checkpoint import Checkpoint, checkpoint_folder
from compressor.system.context import Context
from compressor.system.files import read_tensors
from compressor.training import checkpoint as training_checkpoint
from compressor.training.checkpoint import TrainingCheckpoint
from compressor.training.early_stopping import EarlyStopping
from compressor.training.finetune_stage import finetune_directory
from compressor.training.freelb import Perturbation
from compressor.training.loop import TrainingSet, train
from compressor.training.schedule import Schedule

LENGTH = 16
STEPS = 6
NEVER = 10**6


@pytest.fixture
def kept_always(monkeypatch):
    monkeypatch.setattr(training_checkpoint, "SECONDS_BETWEEN", 0.0)


def trained(directory, data, schedule, checkpoint=None, stop=STEPS):
    """A classifier with half of its encoder's weights zeroed, trained; and the steps taken."""
    classifier = load_classifier(str(directory))
    linears = encoder_linears(classifier.model)
    masks = {name: Unstructured(0.5).mask(linear.weight.detach().abs()) for name, linear in linears.items()}
    classifier.model.bert.embeddings.requires_grad_(False)
    taken = train(
        classifier,
        TrainingSet(encode(classifier.tokenizer, data, LENGTH), torch.tensor(data.class_labels)),
        schedule,
        seed=0,
        masks=masks,
        checkpoint=checkpoint and TrainingCheckpoint(checkpoint, "training"),
        track=lambda steps: StopBefore(stop).track(steps, ""),
    )
    return classifier.model.state_dict(), taken


@pytest.mark.parametrize("stop", [1, 4, STEPS])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adam", "accumulation_steps": 2},
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"perturbation": Perturbation(2, 0.1, 0.05, None, 0.5)},
    ],
)
def test_it_ends_with_the_same_bits(small_classifier_dir, quotes, tmp_path, kept_always, changes, stop):
    data = quotes.select(range(40))
    schedule = Schedule(**{"steps": STEPS, "learning_rate": 1e-3, "batch_size": 8} | changes)
    expected, _ = trained(small_classifier_dir, data, schedule)
    checkpoint = Checkpoint(tmp_path / "progress")
    if stop < STEPS:
        with pytest.raises(StoppedError):
            trained(small_classifier_dir, data, schedule, checkpoint, stop)
    else:
        trained(small_classifier_dir, data, schedule, checkpoint)
    assert checkpoint.load("training").facts == {"steps": stop}
    torch.manual_seed(7)
    found, taken = trained(small_classifier_dir, data, schedule, checkpoint)
    assert taken == STEPS
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_steps_that_are_done_are_not_taken_again(
    small_classifier_dir, quotes, tmp_path, kept_always, monkeypatch
):
    data = quotes.select(range(40))
    schedule = Schedule(STEPS, 1e-3, 8)
    checkpoint = Checkpoint(tmp_path / "progress")
    with pytest.raises(StoppedError):
        trained(small_classifier_dir, data, schedule, checkpoint, 4)
    kept = []
    own = TrainingCheckpoint.keep
    monkeypatch.setattr(
        TrainingCheckpoint, "keep", lambda self, *given: (kept.append(given[-1]), own(self, *given))
    )
    trained(small_classifier_dir, data, schedule, checkpoint)
    assert kept == [5, 6]


def test_a_short_training_keeps_nothing(small_classifier_dir, quotes, tmp_path):
    checkpoint = Checkpoint(tmp_path / "progress")
    trained(small_classifier_dir, quotes.select(range(16)), Schedule(2, 1e-3, 8), checkpoint)
    assert not checkpoint.folder.exists()


def test_only_what_is_trained_is_kept(small_classifier_dir, quotes, tmp_path, kept_always):
    checkpoint = Checkpoint(tmp_path / "progress")
    trained(small_classifier_dir, quotes.select(range(16)), Schedule(1, 1e-3, 8), checkpoint)
    tensors, _ = read_tensors(tmp_path / "progress" / "training.safetensors", "cpu")
    assert not any("embeddings" in name for name in tensors)
    assert "weight.classifier.weight" in tensors


def test_early_stopping_keeps_no_state(small_classifier, quotes, tmp_path):
    data = quotes.select(range(16))
    training = TrainingSet(encode(small_classifier.tokenizer, data, LENGTH), torch.tensor(data.class_labels))
    state = TrainingCheckpoint(Checkpoint(tmp_path / "progress"), "training")
    stopping = EarlyStopping(lambda: 0.0, interval=1, patience=1)
    with pytest.raises(ValueError, match="may stop early"):
        train(small_classifier, training, Schedule(1, 1e-3, 8), seed=0, best=stopping, checkpoint=state)


# the finetune stage ---------------------------------------------------------------------------------


def finetuned(encoder, texts, output, stop=NEVER, rate=1e-3, **options):
    return finetune_directory(
        str(encoder),
        str(texts),
        FinetuneConfig(epochs=1, learning_rate=rate),
        Context(
            output=output,
            columns=ColumnsConfig(max_length=LENGTH),
            run=RunConfig(device="cpu", threads=2),
            progress=StopBefore(stop),
            **{"force": False} | options,
        ),
    ).model_dump()


@pytest.fixture
def stopped(small_encoder_dir, critic_quotes, tmp_path, kept_always):
    """Encoder, texts, and the output of a fine-tuning that was stopped behind its third step."""
    lines = (critic_quotes / "small.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "texts.tsv").write_text("".join(lines[:161]), encoding="utf-8")
    given = small_encoder_dir, tmp_path / "texts.tsv", tmp_path / "dense"
    with pytest.raises(StoppedError):
        finetuned(*given, stop=3)
    assert not given[-1].exists()
    return given


def test_a_stopped_finetuning_goes_on(stopped, tmp_path):
    *given, output = stopped
    whole = finetuned(*given, tmp_path / "whole")
    record = finetuned(*given, output)
    assert record["sha256"] == whole["sha256"]
    assert record["steps"] == whole["steps"]
    assert not checkpoint_folder(output).exists()


def test_another_finetuning_does_not_go_on_with_it(stopped):
    with pytest.raises(UserError, match=r"learning_rate changed from 0\.001 to 0\.002"):
        finetuned(*stopped, rate=2e-3)


def test_force_begins_anew(stopped, tmp_path):
    *given, output = stopped
    assert finetuned(*given, output, rate=2e-3, force=True)["options"]["learning_rate"] == 2e-3


def test_an_output_that_cannot_be_written_is_told_before_the_training(
    small_encoder_dir, critic_quotes, tmp_path
):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        finetuned(small_encoder_dir, critic_quotes / "small.tsv", tmp_path / "file" / "dense", stop=0)
