import pytest
import torch

from compressor.classifier import encoder_weights, load_classifier
from compressor.console import SilentProgress
from compressor.data import load_text_data
from compressor.errors import UserError
from compressor.patterns import NM, Unstructured
from compressor.pruning import PruningJob, prune_classifier
from compressor.recipe import ColumnsConfig, PruneConfig, RandomizedConfig

QUICK = RandomizedConfig(
    steps=2, candidates=2, early_steps=1, recovery_steps=3, holdout_examples=32, batch_size=16
)


@pytest.fixture(scope="module")
def texts(critic_quotes):
    return load_text_data(str(critic_quotes / "train.tsv"), ColumnsConfig(), "train").select(range(160))


def prune(directory, texts, pattern, config=QUICK, seed=0):
    classifier = load_classifier(str(directory))
    job = PruningJob(pattern, PruneConfig(algorithm="randomized", randomized=config), 32, seed)
    return classifier, prune_classifier(classifier, texts, job, SilentProgress())


@pytest.mark.parametrize("pattern", [Unstructured(0.5), NM(2, 4)])
def test_zeros_are_exact_after_recovery(small_classifier_dir, texts, pattern):
    classifier, result = prune(small_classifier_dir, texts, pattern)
    for name, weight in encoder_weights(classifier.model).items():
        assert pattern.is_met_by(result.masks[name])
        assert torch.equal(weight != 0, result.masks[name]), name


def test_details_tell_what_was_tried_and_chosen(small_classifier_dir, texts):
    _, result = prune(small_classifier_dir, texts, Unstructured(0.5))
    assert result.details["training_examples"] == 128
    assert result.details["holdout_examples"] == 32
    assert result.details["training_steps"] == 2 * (3 + 2 * 1)
    for step in result.details["steps"]:
        losses = step["early_losses"]
        assert len(losses) == 2
        assert losses[step["chosen"]] == min(losses)


def test_same_seed_same_weights(small_classifier_dir, texts):
    first, _ = prune(small_classifier_dir, texts, Unstructured(0.5), seed=4)
    second, _ = prune(small_classifier_dir, texts, Unstructured(0.5), seed=4)
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_recovery_brings_the_held_out_loss_down(small_classifier_dir, texts):
    hard = Unstructured(0.8)
    none = QUICK.model_copy(update={"recovery_steps": 0, "steps": 1})
    some = QUICK.model_copy(update={"recovery_steps": 25, "steps": 1, "learning_rate": 2e-4})
    again = load_text_data(texts.source, ColumnsConfig(), "train").select(range(200, 328))
    distances = []
    dense = load_classifier(str(small_classifier_dir))
    for config in (none, some):
        classifier, _ = prune(small_classifier_dir, texts, hard, config)
        tokens = classifier.tokenizer(
            again.texts, padding=True, truncation=True, max_length=32, return_tensors="pt"
        )
        with torch.inference_mode():
            distance = dense.model(**tokens).logits - classifier.model(**tokens).logits
        distances.append(float(distance.square().mean()))
    assert distances[1] < distances[0]


def test_more_held_out_texts_than_there_are_is_an_error(small_classifier_dir, texts):
    greedy = QUICK.model_copy(update={"holdout_examples": 160})
    with pytest.raises(UserError, match="holdout-examples"):
        prune(small_classifier_dir, texts, Unstructured(0.5), greedy)
