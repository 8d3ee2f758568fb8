"""The side-by-side walk: moments over real tokens only, and hidden states that are the model's own."""

import copy

import numpy as np
import pytest
import torch

from compressor.models.batching import encode, pad
from compressor.models.encoders.bert import BERT
from compressor.models.structure import linear_at
from compressor.pruning.walk import Moments, SideBySide, calibration_batches

LENGTH = 48
FIRSTS = [group[0] for group in BERT.linears.groups]


@pytest.fixture
def encoded(small_classifier, quotes):
    return encode(small_classifier.tokenizer, quotes.select(range(24)), LENGTH)


@pytest.fixture
def drifted(small_classifier, drifted_copy):
    """A copy whose encoder weights are all a little off, as behind a pruned part."""
    return drifted_copy(small_classifier.model, 0.01)


def batches_of(classifier, encoded, size, length=None):
    pad_token_id = classifier.tokenizer.pad_token_id
    return [pad(encoded[i : i + size], pad_token_id, length=length) for i in range(0, len(encoded), size)]


def all_moments(dense, pruned, batches) -> list[Moments]:
    """Moments of every input of every encoder layer."""
    walk = SideBySide(dense, pruned, batches)
    found = []
    for _ in range(len(dense.bert.encoder.layer)):
        found += [walk.moments(name) for name in FIRSTS]
        walk.advance()
    return found


def inputs_text_by_text(model, classifier, encoded) -> list[np.ndarray]:
    """Inputs `(tokens, in)` of the same layers, float64, each text alone and without any padding."""
    model = copy.deepcopy(model).double()
    caught: dict[int, list[np.ndarray]] = {}
    modules = [linear_at(block, name) for block in model.bert.encoder.layer for name in FIRSTS]
    for index, module in enumerate(modules):
        module.register_forward_pre_hook(
            lambda _, args, index=index: caught.setdefault(index, []).append(args[0][0].numpy())
        )
    with torch.no_grad():
        for text in encoded:
            model(**pad([text], classifier.tokenizer.pad_token_id))
    return [np.concatenate(caught[index]) for index in range(len(modules))]


def assert_same(found: Moments, expected: Moments, tolerance: float) -> None:
    assert found.count == expected.count
    for name in ("dense_sum", "pruned_sum", "square", "cross", "hessian", "centred_cross"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == torch.float64
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max()), name


def test_padding_changes_nothing(small_classifier, drifted, encoded):
    plain = all_moments(small_classifier.model, drifted, batches_of(small_classifier, encoded, 8))
    padded = all_moments(small_classifier.model, drifted, batches_of(small_classifier, encoded, 8, 128))
    for one, other in zip(padded, plain, strict=True):
        assert_same(one, other, 1e-5)


def test_size_and_order_of_batches_change_nothing(small_classifier, drifted, encoded):
    plain = all_moments(small_classifier.model, drifted, batches_of(small_classifier, encoded, 24))
    reordered = all_moments(small_classifier.model, drifted, batches_of(small_classifier, encoded[::-1], 5))
    for one, other in zip(reordered, plain, strict=True):
        assert_same(one, other, 1e-5)


def test_moments_are_those_of_single_texts_in_float64(small_classifier, drifted, encoded):
    found = all_moments(small_classifier.model, drifted, batches_of(small_classifier, encoded, 8))
    dense_inputs = inputs_text_by_text(small_classifier.model, small_classifier, encoded)
    drifted_inputs = inputs_text_by_text(drifted, small_classifier, encoded)
    assert len(found) == len(dense_inputs) == 2 * len(BERT.linears.groups)
    for moments, dense, pruned in zip(found, dense_inputs, drifted_inputs, strict=True):
        assert moments.count == len(dense) == sum(len(ids) for ids, _ in encoded)
        centred = pruned - pruned.mean(axis=0)
        expected = {
            "square": pruned.T @ pruned,
            "cross": dense.T @ pruned,
            "dense_sum": dense.sum(axis=0),
            "pruned_mean": pruned.mean(axis=0),
            "hessian": centred.T @ centred,
            "centred_cross": (dense - dense.mean(axis=0)).T @ centred,
        }
        for name, value in expected.items():
            difference = np.abs(getattr(moments, name).numpy() - value).max()
            assert difference <= 2e-5 * np.abs(value).max(), name


def test_layers_of_a_group_share_their_input(small_classifier, drifted, encoded):
    walk = SideBySide(small_classifier.model, drifted, batches_of(small_classifier, encoded, 8))
    first, *others = (walk.moments(name) for name in BERT.linears.groups[0])
    for other in others:
        assert torch.equal(first.square, other.square)
        assert torch.equal(first.cross, other.cross)


def test_moments_see_what_was_pruned_before_them(small_classifier, encoded):
    pruned = copy.deepcopy(small_classifier.model)
    walk = SideBySide(small_classifier.model, pruned, batches_of(small_classifier, encoded, 8))
    before = walk.moments("output.dense")
    with torch.no_grad():
        pruned.bert.encoder.layer[0].intermediate.dense.weight *= 0.5
    after = walk.moments("output.dense")
    assert torch.equal(before.dense_sum, after.dense_sum)
    assert float((before.pruned_sum - after.pruned_sum).abs().max()) > 1.0


def test_trained_embeddings_are_drift_as_well(small_classifier, encoded):
    trained = copy.deepcopy(small_classifier.model)
    with torch.no_grad():
        trained.bert.embeddings.word_embeddings.weight *= -1
    batches = batches_of(small_classifier, encoded, 8)
    walk = SideBySide(small_classifier.model, trained, batches)
    moments, own = walk.moments("attention.self.query"), SideBySide(trained, trained, batches)
    assert torch.equal(moments.square, own.moments("attention.self.query").square)
    assert not torch.equal(moments.square, moments.cross)


def test_one_model_on_both_sides_has_one_moment(small_classifier, encoded):
    batches = batches_of(small_classifier, encoded, 8)
    for moments in all_moments(small_classifier.model, small_classifier.model, batches):
        assert torch.equal(moments.square, moments.cross)
        assert torch.equal(moments.dense_sum, moments.pruned_sum)


def test_hidden_states_are_the_models_own(small_classifier, drifted, encoded):
    batches = batches_of(small_classifier, encoded, 8, length=60)
    walk = SideBySide(small_classifier.model, drifted, batches)
    assert len(walk.batches) == 3
    for step in range(3):
        found = (walk._dense_states, walk._pruned_states)
        for model, states in zip((small_classifier.model, drifted), found, strict=True):
            for batch, state in zip(batches, states, strict=True):
                with torch.no_grad():
                    # Only the embeddings are shared, which `drifted` has kept.
                    expected = model(**batch, output_hidden_states=True).hidden_states[step]
                tokens = batch["attention_mask"].bool()
                torch.testing.assert_close(state[tokens], expected[tokens], rtol=1e-5, atol=1e-5)
        if step < 2:
            walk.advance()


def test_first_tokens_are_the_states_that_the_poolers_get(small_classifier, drifted, encoded):
    batches = batches_of(small_classifier, encoded, 8)
    walk = SideBySide(small_classifier.model, drifted, batches)
    walk.advance()
    walk.advance()
    for model, found in zip((small_classifier.model, drifted), walk.head_inputs(), strict=True):
        with torch.no_grad():
            expected = torch.cat([model.bert(**batch).last_hidden_state[:, 0] for batch in batches])
        assert found.shape == (len(encoded), model.config.hidden_size)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_calibration_batches_hold_each_text_once_by_length(small_classifier, encoded):
    pad_token_id = small_classifier.tokenizer.pad_token_id
    batches = calibration_batches(encoded, 7, pad_token_id, torch.device("cpu"))
    assert [len(batch["input_ids"]) for batch in batches] == [7, 7, 7, 3]
    widths = [batch["input_ids"].shape[1] for batch in batches]
    assert widths == sorted(widths)
    found = [
        tuple(ids[mask.bool()].tolist())
        for batch in batches
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert sorted(found) == sorted(tuple(ids) for ids, _ in encoded)


def test_the_walk_leaves_no_hooks_behind(small_classifier, drifted, encoded):
    all_moments(small_classifier.model, drifted, batches_of(small_classifier, encoded, 8))
    for model in (small_classifier.model, drifted):
        assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_last_cls_states_are_the_models_own_wherever_the_walk_stands(small_classifier, encoded):
    model, batches = small_classifier.model, batches_of(small_classifier, encoded, 8)
    with torch.no_grad():
        expected = torch.cat([model.bert(**batch).last_hidden_state[:, 0] for batch in batches])
    walk = SideBySide(model, model, batches)
    torch.testing.assert_close(walk.last_head_inputs(), expected, rtol=1e-4, atol=1e-5)
    walk.advance()
    torch.testing.assert_close(walk.last_head_inputs(), expected, rtol=1e-4, atol=1e-5)
