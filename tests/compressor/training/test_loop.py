"""Training: masks hold after every step, the loss is its formula, and nothing global is left behind."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compressor.data.texts import load_text_data
from compressor.models.batching import encode, pad
from compressor.models.classifier import encoder_linears, load_classifier, load_for_finetuning
from compressor.models.metrics import correlation
from compressor.models.predictors import TorchPredictor, predict, predict_encoded
from compressor.options import ColumnsConfig
from compressor.pruning.patterns import Unstructured
from compressor.system.files import read_json
from compressor.training.early_stopping import EarlyStopping
from compressor.training.loop import TrainingSet, apply_masks, train
from compressor.training.losses import distillation_loss, hidden_distance
from compressor.training.schedule import Schedule, learning_rate_factor
from compressor.training.teacher import ask_teacher

LENGTH = 16


@pytest.fixture
def training_set(small_classifier, quotes):
    data = quotes.select(range(32))
    return TrainingSet(encode(small_classifier.tokenizer, data, LENGTH), torch.tensor(data.class_labels))


def masks_of(classifier):
    return {
        name: Unstructured(0.5).mask(linear.weight.abs())
        for name, linear in encoder_linears(classifier.model).items()
    }


def masked_weights_are_zero(classifier, masks):
    linears = encoder_linears(classifier.model)
    return all(not linears[name].weight[~mask].any() for name, mask in masks.items())


def test_the_small_classifier_is_clearly_better_than_a_constant_answer(small_classifier, test_quotes):
    found = predict(TorchPredictor(small_classifier), test_quotes, 48).argmax(axis=1)
    accuracy = float((found == np.array(test_quotes.class_labels)).mean())
    assert accuracy >= test_quotes.majority_share() + 0.05


def test_the_finetune_stage_writes_its_record(small_classifier_dir, small_encoder_dir):
    record = read_json(small_classifier_dir / "training.json")
    assert record["labels"] == ["fresh", "rotten"]
    assert record["steps"] == 96
    assert record["data"]["examples"] == 1000
    assert record["model"]["source"] == str(small_encoder_dir)


# masks ------------------------------------------------------------------------------------------


def test_masks_hold_after_every_step(small_classifier, training_set):
    masks = masks_of(small_classifier)
    seen = []

    def track(steps):
        for step in steps:
            seen.append(masked_weights_are_zero(small_classifier, masks))
            yield step
        seen.append(masked_weights_are_zero(small_classifier, masks))

    train(small_classifier, training_set, Schedule(4, 1e-3, 8), seed=0, masks=masks, track=track)
    assert seen == [True] * 5


def test_masked_training_still_moves_the_other_weights(small_classifier, training_set):
    masks = masks_of(small_classifier)
    apply_masks(small_classifier.model, masks)
    before = {name: linear.weight.clone() for name, linear in encoder_linears(small_classifier.model).items()}
    train(small_classifier, training_set, Schedule(2, 1e-3, 8), seed=0, masks=masks)
    for name, linear in encoder_linears(small_classifier.model).items():
        assert (linear.weight != before[name])[masks[name]].float().mean() > 0.9


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3.0])
def test_masks_make_zeros_of_anything(small_classifier, value):
    masks = masks_of(small_classifier)
    linears = encoder_linears(small_classifier.model)
    with torch.no_grad():
        for name, linear in linears.items():
            linear.weight[~masks[name]] = value
    apply_masks(small_classifier.model, masks)
    assert masked_weights_are_zero(small_classifier, masks)
    assert all((linear.weight[~masks[name]] == 0).all() for name, linear in linears.items())


def test_masks_leave_the_weights_they_keep(small_classifier):
    masks = masks_of(small_classifier)
    before = {name: linear.weight.clone() for name, linear in encoder_linears(small_classifier.model).items()}
    apply_masks(small_classifier.model, masks)
    for name, linear in encoder_linears(small_classifier.model).items():
        assert torch.equal(linear.weight[masks[name]], before[name][masks[name]])


# regression -------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(*[st.floats(-5, 5)] * 3), min_size=1, max_size=8),
    st.floats(0, 1),
    st.floats(0.1, 9),
)
def test_the_loss_of_a_regression_is_its_formula(rows, weight, temperature):
    logits, labels, teacher = torch.tensor(rows, dtype=torch.float64).T
    schedule = Schedule(1, 0.1, 8, distillation_weight=weight, distillation_temperature=temperature)
    found = distillation_loss(logits[:, None], labels, teacher[:, None], schedule)
    errors = [(a - b) ** 2 for a, b, _ in rows], [(a - c) ** 2 for a, _, c in rows]
    expected = (1 - weight) * np.mean(errors[0]) + weight * np.mean(errors[1])
    assert float(found) == pytest.approx(expected, abs=1e-9)


def test_a_regression_learns_numbers_of_pairs(regression_dir, numbered_pairs):
    classifier = load_classifier(str(regression_dir))
    assert (classifier.task, classifier.label_names) == ("regression", ["score"])
    assert classifier.model.config.problem_type == "regression"
    data = load_text_data(
        str(numbered_pairs / "test.tsv"), ColumnsConfig(), "test", label_names=classifier.label_names
    )
    assert data.pairs is not None
    answers = predict(TorchPredictor(classifier), data, 48)
    assert correlation("pearson", answers[:, 0], data.numbers) > 0.5


def test_a_regression_made_from_a_classifier_has_one_output(small_classifier_dir):
    found = load_for_finetuning(str(small_classifier_dir), ["score"], seed=0)
    assert found.model.classifier.out_features == 1
    assert found.task == "regression"


def test_classes_made_from_a_regression_are_classes(regression_dir):
    found = load_for_finetuning(str(regression_dir), ["no", "yes"], seed=0)
    assert (found.task, found.model.config.problem_type) == ("classification", None)


# learning ---------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_ends_in_evaluation_mode(small_classifier, training_set, quotes):
    data = quotes.select(range(32))

    def loss():
        logits = torch.from_numpy(predict(TorchPredictor(small_classifier), data, LENGTH))
        return float(nn.functional.cross_entropy(logits, torch.tensor(data.class_labels)))

    before = loss()
    train(small_classifier, training_set, Schedule(16, 3e-4, 8), seed=0)
    assert loss() < 0.7 * before
    assert not small_classifier.model.training


def test_same_seed_same_weights(small_classifier_dir, training_set):
    states = []
    for seed in (1, 1, 2):
        classifier = load_classifier(str(small_classifier_dir))
        train(classifier, training_set, Schedule(3, 1e-4, 8), seed=seed)
        states.append(classifier.model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_global_random_states_are_put_back(small_classifier, training_set):
    torch.manual_seed(11)
    np.random.seed(11)
    expected = torch.rand(4), np.random.random(4)
    torch.manual_seed(11)
    np.random.seed(11)
    train(small_classifier, training_set, Schedule(1, 1e-4, 8), seed=3)
    assert torch.equal(torch.rand(4), expected[0])
    assert np.array_equal(np.random.random(4), expected[1])


def test_no_steps_change_nothing_but_masked_weights(small_classifier, small_classifier_dir, training_set):
    train(small_classifier, training_set, Schedule(0, 1e-3, 8), seed=0)
    dense = load_classifier(str(small_classifier_dir)).model.state_dict()
    assert all(torch.equal(value, dense[name]) for name, value in small_classifier.model.state_dict().items())


# schedule ---------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.floats(0, 1), st.data())
def test_learning_rate_stays_between_zero_and_its_peak(steps, warmup_share, data):
    schedule = Schedule(steps, 1e-3, 8, warmup_share=warmup_share)
    step = data.draw(st.integers(0, steps - 1))
    assert 0 < learning_rate_factor(step, schedule) <= 1


@given(st.integers(1, 300), st.floats(0, 1))
def test_learning_rate_rises_to_its_peak_once_and_falls(steps, warmup_share):
    schedule = Schedule(steps, 1e-3, 8, warmup_share=warmup_share)
    factors = [learning_rate_factor(step, schedule) for step in range(steps)]
    peak = int(np.argmax(factors))
    assert factors[peak] == pytest.approx(1.0)
    assert all(a < b for a, b in itertools.pairwise(factors[: peak + 1]))
    assert all(a >= b for a, b in itertools.pairwise(factors[peak:]))


def test_learning_rate_by_hand():
    schedule = Schedule(10, 1e-3, 8, warmup_share=0.2)
    found = [learning_rate_factor(step, schedule) for step in range(10)]
    expected = [1 / 2, 1.0, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9]
    assert found == pytest.approx(expected)


# loss -------------------------------------------------------------------------------------------


def softmax(values):
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0.5, 10))
def test_distillation_loss_is_its_formula(seed, weight, temperature):
    generator = np.random.default_rng(seed)
    logits, teacher = 3 * generator.standard_normal((2, 6, 3))
    labels = generator.integers(0, 3, 6)
    entropy = -np.log(softmax(logits)[np.arange(6), labels]).mean()
    p, q = softmax(teacher / temperature), softmax(logits / temperature)
    divergence = (p * (np.log(p) - np.log(q))).sum(axis=1).mean()
    expected = (1 - weight) * entropy + weight * temperature**2 * divergence
    schedule = Schedule(1, 1e-3, 6, distillation_weight=weight, distillation_temperature=temperature)
    found = distillation_loss(*map(torch.from_numpy, (logits, labels, teacher)), schedule)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_loss_without_a_teacher_is_the_cross_entropy():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    schedule = Schedule(1, 1e-3, 4, distillation_weight=0.7)
    expected = nn.functional.cross_entropy(logits, labels)
    assert torch.equal(distillation_loss(logits, labels, None, schedule), expected)


def test_a_teacher_is_asked_where_the_data_have_no_logits_of_it(small_classifier_dir, training_set):
    schedule = Schedule(3, 1e-3, 8, distillation_weight=0.7, distillation_temperature=2.0, dropout=False)
    dense = load_classifier(str(small_classifier_dir))
    logits = torch.from_numpy(predict_encoded(TorchPredictor(dense), training_set.encoded, 64))
    known = TrainingSet(training_set.encoded, training_set.labels, logits)
    trained = []
    for data in (known, training_set):
        classifier = load_classifier(str(small_classifier_dir))
        masks = masks_of(classifier)
        train(classifier, data, schedule, seed=0, masks=masks, teacher=dense.model)
        trained.append(classifier.model.state_dict())
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], rtol=1e-3, atol=1e-4)


def test_answers_that_were_asked_before_teach_as_those_of_each_step(small_classifier_dir, training_set):
    schedule = Schedule(
        6, 1e-3, 8, distillation_weight=1.0, hidden_weight=3.0, dropout=False, optimizer="sgd"
    )
    dense = load_classifier(str(small_classifier_dir))
    logits, states = ask_teacher(dense.model, training_set.encoded, dense.tokenizer.pad_token_id)
    known = replace(training_set, teacher_logits=logits, teacher_states=states)
    trained = []
    for data, teacher in ((known, None), (training_set, dense.model)):
        classifier = load_classifier(str(small_classifier_dir))
        masks = masks_of(classifier)
        train(classifier, data, schedule, seed=0, masks=masks, teacher=teacher)
        trained.append(classifier.model.state_dict())
    changed = 0.0
    untrained = load_classifier(str(small_classifier_dir)).model.state_dict()
    for name, value in trained[0].items():
        changed = max(changed, float((value - untrained[name]).abs().max()))
        torch.testing.assert_close(value, trained[1][name], rtol=1e-3, atol=1e-5)
    assert changed > 1e-3


def test_hidden_states_are_those_of_each_text_alone(small_classifier_dir, training_set):
    dense = load_classifier(str(small_classifier_dir))
    encoded, padding = training_set.encoded, dense.tokenizer.pad_token_id
    logits, states = ask_teacher(dense.model, encoded, padding)
    places = [5, 0, 17]
    found = states.at(places, torch.device("cpu"))
    assert {own.dtype for own in found} == {torch.float32}
    for row, place in enumerate(places):
        with torch.no_grad():
            answer = dense.model(**pad([encoded[place]], padding), output_hidden_states=True)
        torch.testing.assert_close(logits[place], answer.logits[0], rtol=1e-4, atol=1e-5)
        length = len(encoded[place][0])
        for own, expected in zip(found, answer.hidden_states[1:], strict=True):
            torch.testing.assert_close(own[row, :length], expected[0], rtol=2e-3, atol=2e-3)
            assert not own[row, length:].count_nonzero()


def test_distillation_follows_the_teacher_and_not_the_labels(small_classifier, training_set):
    teacher = torch.tensor([[4.0, -4.0]]).repeat(32, 1)
    data = TrainingSet(training_set.encoded, torch.ones(32, dtype=torch.long), teacher)
    train(small_classifier, data, Schedule(20, 5e-4, 8, distillation_weight=1.0), seed=0)
    found = TorchPredictor(small_classifier)
    assert (predict_encoded(found, data.encoded, 32).argmax(axis=1) == 0).all()


def without_dropout(classifier):
    for module in classifier.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):  # of the fused attention, which has no module for it
            module.dropout_prob = 0.0
    return classifier


def test_accumulated_batches_train_as_one_large_batch(small_classifier_dir, quotes):
    def trained(batch_size, accumulation_steps):
        classifier = without_dropout(load_classifier(str(small_classifier_dir)))
        data = quotes.select(range(16))
        training = TrainingSet(encode(classifier.tokenizer, data, LENGTH), torch.tensor(data.class_labels))
        schedule = Schedule(1, 0.1, batch_size, optimizer="sgd", accumulation_steps=accumulation_steps)
        train(classifier, training, schedule, seed=0)
        return classifier.model.parameters()

    for one, parts in zip(trained(16, 1), trained(4, 4), strict=True):
        assert torch.allclose(one, parts, atol=1e-5)


def test_bfloat16_learns_and_leaves_float32_weights(small_classifier, training_set):
    before = small_classifier.model.classifier.weight.clone()
    train(small_classifier, training_set, Schedule(4, 1e-3, 8, precision="bf16"), seed=0)
    after = small_classifier.model.classifier.weight
    assert after.dtype == torch.float32
    assert not torch.equal(before, after)
    assert torch.isfinite(after).all()


@given(seed=st.integers(0, 2**31 - 1), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_hidden_distance_is_a_mean_over_words_without_padding(seed, lengths):
    generator = torch.Generator().manual_seed(seed)
    own, other = (
        [torch.randn((len(lengths), 5, 3), generator=generator, dtype=torch.float64) for _ in range(2)]
        for _ in range(2)
    )
    mask = torch.tensor([[int(place < length) for place in range(5)] for length in lengths])
    words = [
        float((a[row, place] - b[row, place]).square().sum())
        for a, b in zip(own, other, strict=True)
        for row, length in enumerate(lengths)
        for place in range(length)
    ]
    expected = sum(words) / (2 * sum(lengths) * 3)
    assert float(hidden_distance(own, other, mask)) == pytest.approx(expected, rel=1e-4)


def test_early_stopping_takes_the_weights_of_the_lowest_loss(small_classifier, training_set):
    losses = iter([3.0, 1.0, 2.0, 1.5, 0.5])
    seen = []

    def loss():
        assert not small_classifier.model.training
        seen.append(small_classifier.model.classifier.weight.clone())
        return next(losses)

    stopping = EarlyStopping(loss, interval=2, patience=2)
    taken = train(small_classifier, training_set, Schedule(20, 1e-3, 8), seed=0, best=stopping)
    assert taken == 8
    assert torch.equal(small_classifier.model.classifier.weight, seen[1])
    assert not torch.equal(seen[1], seen[3])


def test_the_last_step_is_evaluated_too(small_classifier, training_set):
    count = itertools.count()
    stopping = EarlyStopping(lambda: -float(next(count)), interval=2, patience=1)
    assert train(small_classifier, training_set, Schedule(3, 1e-3, 8), seed=0, best=stopping) == 3
    assert next(count) == 2
