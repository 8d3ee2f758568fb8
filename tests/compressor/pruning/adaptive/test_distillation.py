"""Distillation of a whole pruned model, without labels, on a real small classifier."""

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from stopping import StopBefore, StoppedError

from compressor.data.texts import TextData, load_text_data
from compressor.errors import UserError
from compressor.models.batching import encode, encode_windows, pad
from compressor.models.classifier import encoder_linears, load_classifier
from compressor.models.predictors import TorchPredictor, predict
from compressor.options import AdaptiveConfig, ColumnsConfig, PruneConfig, RunConfig
from compressor.pruning.adaptive.distillation import (
    Distillation,
    Perturbed,
    _HeldOut,
    _Measured,
    distill,
    fastest_rate,
    readable,
)
from compressor.pruning.adaptive.prune import hold_out
from compressor.pruning.interface import PruningJob, check_pruning, prune_classifier, prune_directory
from compressor.pruning.layerwise import prune_layerwise
from compressor.pruning.made_texts import fill_up
from compressor.pruning.patterns import parse_pattern
from compressor.system.checkpoint import Checkpoint, NoCheckpoint
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.training import checkpoint as training_checkpoint
from compressor.training.gradient_substitution import GradientSubstitution
from compressor.training.loop import apply_masks
from compressor.training.losses import answer_divergence, distillation_loss, hidden_distance
from compressor.training.mixture import load_substitution_words
from compressor.training.schedule import Schedule

LENGTH = 32


def zeroed(directory, sparsity=0.7):
    """A classifier without its smallest weights, and its masks."""
    classifier = load_classifier(str(directory))
    pattern = parse_pattern("unstructured", sparsity)
    linears = encoder_linears(classifier.model)
    masks = {name: pattern.mask(linear.weight.detach().abs()) for name, linear in linears.items()}
    apply_masks(classifier.model, masks)
    return classifier, masks


def distilled(directory, data, seed=0, steps=12, rate=5e-4):
    """That classifier, distilled on 24 texts and on made ones."""
    classifier, masks = zeroed(directory)
    encoded = encode(classifier.tokenizer, data.select(range(24)), LENGTH)
    texts = fill_up(encoded, 4000, classifier.tokenizer, LENGTH, np.random.default_rng(seed))
    dense = load_classifier(str(directory)).model
    held_out = encode(classifier.tokenizer, data.select(range(24, 32)), LENGTH)
    options = {"held_out": held_out, "steps": steps, "learning_rate": rate, "seed": seed}
    return classifier, masks, distill(classifier, dense, texts, masks, **options)


@pytest.fixture
def last_weights(monkeypatch):
    """Every evaluation is better than the ones before, so that the weights of the last step are kept."""
    count = itertools.count()
    falling = "compressor.pruning.adaptive.distillation._HeldOut.loss"
    monkeypatch.setattr(falling, lambda held_out: -float(next(count)))


def answers(classifier, data):
    return predict(TorchPredictor(classifier), data, LENGTH)


def test_it_answers_more_like_the_dense_model_and_keeps_zeros_and_embeddings(
    small_classifier_dir, quotes, test_quotes
):
    texts = test_quotes.select(range(200))
    dense = load_classifier(str(small_classifier_dir))
    before, _ = zeroed(small_classifier_dir)
    after, masks, _ = distilled(small_classifier_dir, quotes)
    expected = answers(dense, texts)
    near, far = (np.abs(answers(c, texts) - expected).mean() for c in (after, before))
    assert near < 0.7 * far
    for name, linear in encoder_linears(after.model).items():
        assert torch.equal(linear.weight == 0, ~masks[name]), name
    for name, value in dense.model.state_dict().items():
        same = torch.equal(value, after.model.state_dict()[name])
        assert same == ("embeddings" in name), name
    assert all(value.requires_grad for value in after.model.parameters())
    assert not after.model.training


def test_a_seed_gives_the_same_weights_whatever_the_random_state(small_classifier_dir, quotes):
    torch.manual_seed(1)
    one, _, _ = distilled(small_classifier_dir, quotes, steps=2)
    torch.manual_seed(2)
    other, _, _ = distilled(small_classifier_dir, quotes, steps=2)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


@pytest.mark.parametrize("pattern", ["unstructured", "structured"])
def test_pruning_ends_with_it(small_classifier_dir, quotes, pattern, last_weights):
    def pruned(steps):
        classifier = load_classifier(str(small_classifier_dir))
        adaptive = AdaptiveConfig(solver="greedy", distillation_steps=steps)
        config = PruneConfig(pattern=pattern, calibration_examples=24, adaptive=adaptive)
        job = PruningJob(config, LENGTH, 0, NoCheckpoint())
        result = prune_classifier(classifier, quotes, job, SilentProgress())
        return classifier, result

    (plain, _), (classifier, result) = pruned(0), pruned(2)
    for name, linear in encoder_linears(classifier.model).items():
        assert not torch.equal(linear.weight, encoder_linears(plain.model)[name].weight), name
        if pattern == "unstructured":
            assert torch.equal(linear.weight == 0, ~result.masks[name]), name


@pytest.mark.parametrize(("asked", "seen"), [(0, 24), (40, 40), (10**6, None)])
def test_it_sees_as_many_texts_as_asked_whatever_the_layers_are_solved_with(
    small_classifier_dir, quotes, monkeypatch, asked, seen
):
    def remember(classifier, dense, texts, masks, held_out, **options):
        given.extend(texts)
        assert held_out
        return Distillation(len(held_out), 1.0, 0.5, 1, 0.5)

    given = []
    monkeypatch.setattr("compressor.pruning.adaptive.prune.distill", remember)
    # No made ones behind them.
    monkeypatch.setattr("compressor.pruning.adaptive.prune.DISTILLATION_TOKENS", 0)
    classifier = load_classifier(str(small_classifier_dir))
    adaptive = AdaptiveConfig(solver="greedy", distillation_steps=1, distillation_examples=asked)
    config = PruneConfig(calibration_examples=24, adaptive=adaptive)
    job = PruningJob(config, LENGTH, 3, NoCheckpoint())
    result = prune_classifier(classifier, quotes, job, SilentProgress())
    assert result.details["calibration_examples"] == 24
    others, held_out = hold_out(quotes, job)
    drawn = others.sample(asked or 24, 3)
    assert result.details["distillation_examples"] == len(drawn) == (seen or len(quotes) - len(held_out))
    assert given == encode_windows(classifier.tokenizer, drawn, LENGTH)
    # Some of them are longer than an input.
    assert len(given) > len(drawn)


def test_numbers_are_learnt_too(regression_dir, numbered_pairs):
    data = load_text_data(str(numbered_pairs / "train.tsv"), ColumnsConfig(), "train", label_names=["number"])
    dense = load_classifier(str(regression_dir))
    before, _ = zeroed(regression_dir)
    after, _, _ = distilled(regression_dir, data, steps=40)
    near, far = (np.abs(answers(c, data) - answers(dense, data)).mean() for c in (after, before))
    assert near < 0.8 * far


def test_a_stopped_one_goes_on_to_the_same_weights(
    small_classifier_dir, quotes, tmp_path, monkeypatch, last_weights
):
    def pruned(checkpoint, progress):
        classifier = load_classifier(str(small_classifier_dir))
        adaptive = AdaptiveConfig(solver="greedy", distillation_steps=4)
        config = PruneConfig(calibration_examples=24, adaptive=adaptive)
        job = PruningJob(config, LENGTH, 0, checkpoint)
        prune_classifier(classifier, quotes, job, progress)
        return classifier.model.state_dict()

    expected = pruned(NoCheckpoint(), SilentProgress())
    monkeypatch.setattr(training_checkpoint, "SECONDS_BETWEEN", 0.0)
    checkpoint = Checkpoint(tmp_path / "progress")
    with pytest.raises(StoppedError):
        pruned(checkpoint, StopBefore(2, "Distilling"))
    assert checkpoint.load("distillation").facts == {"steps": 2}
    found = pruned(checkpoint, SilentProgress())
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


# the weights that are kept -------------------------------------------------------------------------


def divergence(classifier, directory, texts):
    expected, found = (
        torch.from_numpy(answers(c, texts)) for c in (load_classifier(str(directory)), classifier)
    )
    return float(answer_divergence(expected, found))


def test_a_harmful_distillation_gives_back_the_start(small_classifier_dir, quotes):
    start, _ = zeroed(small_classifier_dir, 0.3)
    classifier, masks = zeroed(small_classifier_dir, 0.3)
    dense = load_classifier(str(small_classifier_dir)).model
    held_out = quotes.select(range(24, 56))
    texts, held = (encode(classifier.tokenizer, t, LENGTH) for t in (quotes.select(range(8)), held_out))
    found = distill(classifier, dense, texts, masks, held_out=held, steps=3, learning_rate=10.0, seed=0)
    assert (found.kept_step, found.divergence) == (0, found.divergence_before)
    for name, value in start.model.state_dict().items():
        assert torch.equal(value, classifier.model.state_dict()[name]), name


@pytest.mark.parametrize("rate", [1e-4, 1e-3, 0.1])
def test_it_never_ends_further_from_the_dense_model_on_held_out_texts(small_classifier_dir, quotes, rate):
    held_out = quotes.select(range(24, 32))
    before = divergence(zeroed(small_classifier_dir)[0], small_classifier_dir, held_out)
    after, _, found = distilled(small_classifier_dir, quotes, rate=rate)
    measured = divergence(after, small_classifier_dir, held_out)
    assert measured <= before
    assert found.divergence == pytest.approx(measured, rel=1e-4)
    assert found.divergence_before == pytest.approx(before, rel=1e-4)


def test_held_out_texts_are_measured_by_loss_and_divergence(small_classifier_dir, quotes):
    classifier, _ = zeroed(small_classifier_dir)
    dense, data = load_classifier(str(small_classifier_dir)).model, quotes.select(range(40))
    encoded = encode(classifier.tokenizer, data, LENGTH)
    schedule = Schedule(1, 1e-3, 8, distillation_weight=1.0, distillation_temperature=2.0, hidden_weight=30.0)
    held_out = _HeldOut(classifier, dense, encoded, schedule)
    batch = pad(encoded, classifier.tokenizer.pad_token_id)
    with torch.no_grad():
        own, other = (model(**batch, output_hidden_states=True) for model in (classifier.model, dense))
    mask, labels = batch["attention_mask"], torch.zeros(40, dtype=torch.int64)
    distance = hidden_distance(own.hidden_states[1:], other.hidden_states[1:], mask)
    expected = distillation_loss(own.logits, labels, other.logits, schedule) + 30.0 * distance
    loss, found, nothing = held_out.measure()
    assert loss == pytest.approx(float(expected), rel=1e-3)
    assert found == pytest.approx(divergence(classifier, small_classifier_dir, data), rel=1e-3)
    assert nothing is None


class Copies:
    """In place of a substitution: texts that are given, for whatever model."""

    def __init__(self, texts):
        self.texts, self.labels = texts, []

    def seen(self, places, step, model, labels):
        assert step == 0
        self.labels += labels.tolist()
        return [self.texts[place] for place in places]


def test_perturbed_copies_are_held_against_the_answers_to_the_texts_as_they_are(small_classifier_dir, quotes):
    classifier, _ = zeroed(small_classifier_dir)
    dense = load_classifier(str(small_classifier_dir)).model
    encoded = encode(classifier.tokenizer, quotes.select(range(40)), LENGTH)
    copies = encode(classifier.tokenizer, quotes.select(range(40, 80)), LENGTH)
    schedule = Schedule(1, 1e-3, 8, distillation_weight=1.0, distillation_temperature=2.0, hidden_weight=30.0)
    plain = _HeldOut(classifier, dense, encoded, schedule).measure()
    given = Copies(copies)
    found = _HeldOut(classifier, dense, encoded, schedule, Perturbed(None, given, 0.0)).measure()
    with torch.no_grad():
        expected = dense(**pad(encoded, 0)).logits
        changed = classifier.model(**pad(copies, 0)).logits
        own = classifier.model(**pad(encoded, 0)).logits
    # Perturbed against the dense model's answers, which the model is to give.
    assert given.labels == expected.argmax(dim=1).tolist()
    labels = torch.zeros(40, dtype=torch.int64)
    losses = [float(distillation_loss(one, labels, expected, schedule)) for one in (own, changed)]
    assert found.divergence == pytest.approx(plain.divergence, rel=1e-4)
    # Hidden states, which are a part of the loss of a training step, count for nothing here.
    assert found.loss == pytest.approx(sum(losses), rel=1e-3)
    assert found.perturbed_divergence == pytest.approx(float(answer_divergence(expected, changed)), rel=1e-3)


@pytest.mark.parametrize(("tolerance", "third"), [(None, math.inf), (0.0, math.inf), (0.11, 1.0)])
def test_weights_of_a_lower_loss_whose_answers_diverge_more_are_not_kept(monkeypatch, tolerance, third):
    measured = iter([_Measured(3.0, 0.2), _Measured(0.5, 0.4), _Measured(1.0, 0.3), _Measured(4.0, 0.1)])
    held_out = object.__new__(_HeldOut)
    held_out.start, held_out.last = _Measured(math.inf, math.inf), math.inf
    held_out._perturbed = None if tolerance is None else Perturbed(None, Copies([]), tolerance)
    monkeypatch.setattr(_HeldOut, "measure", lambda _: next(measured))
    assert [held_out.loss() for _ in range(4)] == [3.0, math.inf, third, 4.0]
    assert (held_out.start.divergence, held_out.last) == (0.2, 4.0)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_stopped_one_keeps_the_same_best_weights(small_classifier_dir, quotes, tmp_path, monkeypatch, stop):
    """Weights in the middle are the best; the training stops before them and after them."""

    def found(checkpoint, track):
        classifier, masks = zeroed(small_classifier_dir)
        dense = load_classifier(str(small_classifier_dir)).model
        texts = encode(classifier.tokenizer, quotes.select(range(32)), LENGTH)
        options = {"held_out": texts[24:], "steps": 6, "learning_rate": 5e-3, "seed": 0}
        options |= {"checkpoint": checkpoint, "track": track}
        kept = distill(classifier, dense, texts[:24], masks, **options)
        return kept, classifier.model.state_dict()

    def stopped(steps):
        return StopBefore(stop).track(steps, "")

    monkeypatch.setattr(training_checkpoint, "SECONDS_BETWEEN", 0.0)
    whole, losses = _HeldOut.measure, []

    def measured(held_out):
        losses.append(whole(held_out).loss)
        # The loss of the third step is the best.
        return _Measured(losses[-1] if len(losses) < 8 else abs(losses[-1] - losses[3]), 0.0)

    monkeypatch.setattr(_HeldOut, "measure", measured)
    found(NoCheckpoint(), iter)
    expected, weights = found(NoCheckpoint(), iter)
    assert expected.kept_step == 3
    checkpoint = Checkpoint(tmp_path / "progress")
    with pytest.raises(StoppedError):
        found(checkpoint, stopped)
    again, same = found(checkpoint, iter)
    assert again == expected
    for name, value in weights.items():
        assert torch.equal(value, same[name]), name


def job_on(calibration_examples, **adaptive):
    config = PruneConfig(calibration_examples=calibration_examples, adaptive=AdaptiveConfig(**adaptive))
    return PruningJob(config, LENGTH, 7)


@pytest.mark.parametrize(
    ("rows", "solved", "distilled", "held"),
    [
        (9000, 256, 8192, 512),
        (9000, 256, 0, 32),
        (400, 100, 8192, 50),
        (100, 100, 0, 12),
        (2, 100, 0, 1),
    ],
)
def test_an_eighth_of_the_texts_is_held_out(rows, solved, distilled, held):
    data = TextData([f"text {row}" for row in range(rows)], None, None, ["a", "b"], "made")
    job = job_on(solved, distillation_steps=1, distillation_examples=distilled)
    others, held_out = hold_out(data, job)
    assert (len(others), len(held_out)) == (rows - held, held)
    assert not set(others.texts) & set(held_out.texts)


def test_a_text_that_occurs_twice_is_on_one_side():
    data = TextData([f"text {row % 12}" for row in range(60)], None, None, ["a", "b"], "made")
    others, held_out = hold_out(data, job_on(50, distillation_steps=1))
    assert len(others) and len(held_out)
    assert not set(others.texts) & set(held_out.texts)


def test_nothing_is_held_out_where_nothing_is_judged(quotes):
    others, held_out = hold_out(quotes, job_on(50))
    assert others is quotes and len(held_out) == 0


def test_texts_that_judge_were_not_solved_with(small_classifier_dir, quotes, monkeypatch):
    def solve(classifier, data, *given, **options):
        solved.extend(data.texts)
        return prune_layerwise(classifier, data, *given, **options)

    def remember(classifier, dense, texts, masks, held_out, **options):
        judging.extend(held_out)
        return Distillation(len(held_out), 1.0, 0.5, 1, 0.5)

    solved, judging = [], []
    monkeypatch.setattr("compressor.pruning.adaptive.prune.prune_layerwise", solve)
    monkeypatch.setattr("compressor.pruning.adaptive.prune.distill", remember)
    classifier = load_classifier(str(small_classifier_dir))
    # All texts are asked for, as with the file that the model was trained on.
    job = job_on(len(quotes), solver="greedy", distillation_steps=1)
    prune_classifier(classifier, quotes, job, SilentProgress())
    unseen = quotes.select([i for i, text in enumerate(quotes.texts) if text not in set(solved)])
    assert sorted(judging) == sorted(encode(classifier.tokenizer, unseen, LENGTH))


# on words replaced -------------------------------------------------------------------------------


def test_answers_stay_where_words_are_replaced(small_classifier_dir, quotes, any_others):
    dense = load_classifier(str(small_classifier_dir)).model
    texts = quotes.select(range(32))

    def shift(is_robust):
        """How far the answers to texts with words replaced are from the dense model's to the texts."""
        classifier, masks = zeroed(small_classifier_dir, 0.5)
        tokenizer = classifier.tokenizer
        encoded = encode(tokenizer, texts, LENGTH)
        words = (tokenizer, readable(encoded, tokenizer), LENGTH, any_others, 0.2, 0)
        adversarial = GradientSubstitution(*words)
        distill(
            classifier,
            dense,
            encoded,
            masks,
            held_out=encoded,
            steps=20,
            learning_rate=1e-3,
            seed=0,
            perturbed=Perturbed(adversarial, adversarial, math.inf) if is_robust else None,
        )
        with torch.no_grad():
            expected = dense(**pad(encoded, 0)).logits
        # A step that was not trained on.
        seen = adversarial.seen(range(32), 20, classifier.model, expected.argmax(dim=1))
        with torch.no_grad():
            return (classifier.model(**pad(seen, 0)).logits - expected).abs().mean().item()

    assert shift(True) < 0.8 * shift(False)


@pytest.mark.parametrize("is_pair", [False, True])
def test_texts_can_be_read_again(small_classifier, quotes, is_pair):
    tokenizer = small_classifier.tokenizer
    data = quotes.select(range(40))
    if is_pair:
        data = replace(data, pairs=quotes.texts[40:80])
    encoded = encode(tokenizer, data, LENGTH)
    read = readable(encoded, tokenizer)
    assert encode(tokenizer, read, LENGTH) == encoded
    assert (read.pairs is None) == (not is_pair)


def test_windows_and_made_texts_can_be_read_again(small_classifier, quotes):
    tokenizer = small_classifier.tokenizer
    windows = encode_windows(tokenizer, quotes.select(range(40)), LENGTH)
    texts = fill_up(windows, 4000, tokenizer, LENGTH, np.random.default_rng(0))
    read = readable(texts, tokenizer)
    assert len(read) == len(texts) > len(windows) > 40
    assert all(read.texts)
    # A window may begin within a word.
    same = [a == b for a, b in zip(encode(tokenizer, read, LENGTH)[: len(windows)], windows, strict=False)]
    assert sum(same) > 0.9 * len(windows)


@pytest.mark.parametrize("choice", ["drawn", "gradient"])
def test_pruning_can_end_with_words_replaced(
    small_classifier_dir, quotes, vectors_file, tmp_path, monkeypatch, last_weights, choice
):
    def pruned(checkpoint, progress, words):
        classifier = load_classifier(str(small_classifier_dir))
        config = PruneConfig(calibration_examples=24, adaptive=adaptive)
        job = PruningJob(config, LENGTH, 0, checkpoint, words)
        result = prune_classifier(classifier, quotes, job, progress)
        found = result.details["distillation"]
        assert (found["perturbed_divergence"] is None) == (words is None)
        return classifier.model.state_dict()

    options = {"distillation_steps": 4, "distillation_examples": 24, "substitution_choice": choice}
    adaptive = AdaptiveConfig(solver="greedy", robust=True, substitution_vectors=vectors_file, **options)
    words = load_substitution_words(adaptive, SilentProgress())
    expected = pruned(NoCheckpoint(), SilentProgress(), words)
    plain = pruned(NoCheckpoint(), SilentProgress(), None)
    assert any(not torch.equal(value, plain[name]) for name, value in expected.items())
    monkeypatch.setattr(training_checkpoint, "SECONDS_BETWEEN", 0.0)
    checkpoint = Checkpoint(tmp_path / "progress")
    with pytest.raises(StoppedError):
        pruned(checkpoint, StopBefore(2, "Distilling"), words)
    found = pruned(checkpoint, SilentProgress(), words)
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("robust", [True, False])
def test_the_stage_tells_whose_words_replaced_others(
    small_classifier_dir, critic_quotes, vectors_file, tmp_path, robust
):
    options = {"substitution_vectors": vectors_file, "distillation_examples": 24, "distillation_steps": 1}
    record = prune_directory(
        str(small_classifier_dir),
        str(critic_quotes / "train.tsv"),
        PruneConfig(
            calibration_examples=24, adaptive=AdaptiveConfig(solver="greedy", robust=robust, **options)
        ),
        Context(
            output=tmp_path / "pruned",
            columns=ColumnsConfig(max_length=LENGTH),
            run=RunConfig(device="cpu"),
            progress=SilentProgress(),
        ),
    ).model_dump()
    if robust:
        assert record["substitution_vectors"].startswith("words.npz (sha256 ")
        assert "thesaurus" in record["substitution_synonyms"]
    else:
        assert record["substitution_vectors"] is record["substitution_synonyms"] is None


def test_robust_alone_is_a_whole_distillation():
    adaptive = AdaptiveConfig(robust=True)
    assert (adaptive.distillation_steps, adaptive.distillation_examples) == (500, 8192)
    given = AdaptiveConfig(robust=True, distillation_steps=7, distillation_examples=9)
    assert (given.distillation_steps, given.distillation_examples) == (7, 9)
    assert AdaptiveConfig.model_validate(given.model_dump()) == given
    assert AdaptiveConfig().distillation_steps == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distillation_substituted_share", 0.1),
        ("clean_divergence_tolerance", 0.0),
        ("substitution_mixture", "letters"),
        ("substitution_choice", "drawn"),
        ("substitution_draws", 2),
    ],
)
def test_options_of_a_robust_distillation_need_one(name, value):
    with pytest.raises(ValidationError, match=f"{name}: has no effect without .* add robust"):
        AdaptiveConfig(**{name: value})
    AdaptiveConfig(robust=True, **{name: value})


def test_draws_are_not_of_words_that_the_gradient_chooses():
    adaptive = AdaptiveConfig(robust=True, substitution_choice="gradient", substitution_draws=2)
    with pytest.raises(UserError, match="substitution_draws: the worst of 2 draws"):
        check_pruning(PruneConfig(adaptive=adaptive))


def test_the_rate_of_the_lowest_divergence_is_chosen_and_the_model_left_as_it_was(small_classifier):
    model = copy.deepcopy(small_classifier.model)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run(rate):
        with torch.no_grad():
            model.classifier.weight.add_(1.0)
        # On the way all have been better than at the end, and the worst has been the best.
        return Distillation(8, 1.0, 1e-3 - rate, 1, abs(rate - 3e-4))

    assert fastest_rate(model, [1e-4, 2.5e-4, 1e-3], run)[0] == 2.5e-4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
