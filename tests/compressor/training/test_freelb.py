"""FreeLB: its norms, its gradients against a plain reference, and that it makes a model harder to move."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compressor.models.batching import encode, pad
from compressor.options import AdversarialConfig
from compressor.training.freelb import (
    Perturbation,
    adversarial_backward,
    climb,
    perturbation_of,
    random_start,
)
from compressor.training.loop import TrainingSet, train
from compressor.training.schedule import Schedule, perturbation_at

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 8))


def random_mask(shape, generator):
    """At least one word a text."""
    lengths = torch.randint(1, shape[1] + 1, (shape[0],), generator=generator)
    return (torch.arange(shape[1])[None] < lengths[:, None]).float()[:, :, None]


@given(shape=SHAPES, norm=st.floats(0, 10), seed=st.integers(0, 1000))
def test_the_start_is_within_its_norm_and_zero_on_padding(shape, norm, seed):
    torch.manual_seed(seed)
    mask = random_mask(shape, torch.Generator().manual_seed(seed))
    delta = random_start(torch.zeros(shape), mask, norm)
    assert (delta.flatten(1).norm(dim=1) <= norm * (1 + 1e-5)).all()
    assert not (delta * (1 - mask)).any()


@given(shape=SHAPES, step_size=st.floats(0.01, 5), bound=st.floats(0.01, 5), seed=st.integers(0, 1000))
def test_a_climb_has_its_length_and_stays_within_its_bound(shape, step_size, bound, seed):
    generator = torch.Generator().manual_seed(seed)
    delta, gradient = torch.randn(2, *shape, generator=generator)
    free = climb(delta, gradient, Perturbation(3, step_size, 0.1))
    lengths = (free - delta).flatten(1).norm(dim=1)
    assert torch.allclose(lengths, torch.full_like(lengths, step_size), rtol=1e-3, atol=1e-5)
    bounded = climb(delta, gradient, Perturbation(3, step_size, 0.1, bound))
    assert (bounded.flatten(1).norm(dim=1) <= bound * (1 + 1e-4)).all()
    directions = nn.functional.cosine_similarity(bounded.flatten(1), free.flatten(1))
    assert torch.allclose(directions, torch.ones_like(directions), atol=1e-4)


def test_a_gradient_that_vanishes_moves_nothing():
    delta = torch.ones(2, 3, 4)
    assert torch.equal(climb(delta, torch.zeros_like(delta), Perturbation(2, 0.5, 0.1)), delta)


def test_no_steps_no_perturbation():
    assert perturbation_of(AdversarialConfig()) is None
    found = perturbation_of(AdversarialConfig(adversarial_steps=4, adversarial_bound=1.5))
    assert found == Perturbation(4, 0.3, 0.05, 1.5)


# on a model -------------------------------------------------------------------------------------


@pytest.fixture
def batch(small_classifier, quotes):
    encoded = encode(small_classifier.tokenizer, quotes.select(range(6)), 24)
    return pad(encoded, int(small_classifier.tokenizer.pad_token_id)), torch.tensor(quotes.class_labels[:6])


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def loss_of(model, labels):
    return lambda **inputs: nn.functional.cross_entropy(model(**inputs).logits, labels)


def assert_same_gradients(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.allclose(found[name], expected[name], atol=tolerance, rtol=1e-3), name


def test_one_pass_without_a_start_is_plain_training(small_classifier, batch):
    inputs, labels = batch
    model, other = small_classifier.model, copy.deepcopy(small_classifier.model)
    loss_of(model, labels)(**inputs).backward()
    adversarial_backward(
        other.get_input_embeddings(), inputs, loss_of(other, labels), Perturbation(1, 0.5, 0.0)
    )
    assert_same_gradients(gradients(other), gradients(model), 1e-6)


def test_two_passes_against_a_plain_reference_in_float64(small_classifier, batch):
    inputs, labels = batch
    model = small_classifier.model.double()
    reference = copy.deepcopy(model)
    adversarial_backward(
        model.get_input_embeddings(), inputs, loss_of(model, labels), Perturbation(2, 0.5, 0.0)
    )
    # The gradient in the embeddings by one text at a time, where no other text and no padding takes part.
    embeddings = reference.get_input_embeddings()(inputs["input_ids"]).detach()
    delta = torch.zeros_like(embeddings)
    for row, length in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
        own = embeddings[row : row + 1, :length].clone().requires_grad_()
        logits = reference(inputs_embeds=own).logits
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels[row : row + 1]), own)
        delta[row, :length] = 0.5 * gradient[0] / gradient.norm()
    rest = {key: value for key, value in inputs.items() if key != "input_ids"}
    losses = [
        nn.functional.cross_entropy(
            reference(
                inputs_embeds=reference.get_input_embeddings()(inputs["input_ids"]) + shift, **rest
            ).logits,
            labels,
        )
        for shift in (torch.zeros_like(delta), delta)
    ]
    assert losses[1] > losses[0]
    (sum(losses) / 2).backward()
    assert_same_gradients(gradients(model), gradients(reference), 1e-9)


def test_adversarial_training_makes_the_loss_under_perturbation_lower(small_classifier, quotes):
    data = quotes.select(range(200))
    encoded = encode(small_classifier.tokenizer, data, 24)
    labels = torch.tensor(data.class_labels)
    training = TrainingSet(encoded, labels)
    inputs = pad(encoded[:64], int(small_classifier.tokenizer.pad_token_id))

    def loss_under_perturbation(classifier):
        found = []
        loss = loss_of(classifier.model, labels[:64])

        def recorded(**given):
            value = loss(**given)
            found.append(float(value.detach()))
            return value

        embed = classifier.model.get_input_embeddings()
        adversarial_backward(embed, inputs, recorded, Perturbation(2, 1.0, 0.0))
        return found[-1]

    plain, robust = copy.deepcopy(small_classifier), small_classifier
    train(plain, training, Schedule(30, 2e-4, 16), seed=0)
    train(robust, training, Schedule(30, 2e-4, 16, perturbation=Perturbation(3, 0.5, 0.05)), seed=0)
    assert loss_under_perturbation(robust) < 0.9 * loss_under_perturbation(plain)


def test_perturbation_starts_after_its_share_of_the_steps():
    late = Schedule(10, 1e-4, 8, perturbation=Perturbation(3, 0.5, 0.05, start=0.3))
    assert [perturbation_at(step, late) is None for step in range(10)] == [True] * 3 + [False] * 7
    assert perturbation_at(0, Schedule(10, 1e-4, 8, perturbation=Perturbation(3, 0.5, 0.05))) is not None
    assert perturbation_at(9, Schedule(10, 1e-4, 8)) is None
