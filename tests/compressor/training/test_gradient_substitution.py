"""Training texts whose words are replaced by the close ones that raise the loss most."""

import numpy as np
import pytest
import torch

from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.batching import encode_texts, pad
from compressor.options import FinetuneConfig, SoupConfig
from compressor.training.gradient_substitution import (
    GradientSubstitution,
    embedding_gradient,
)
from compressor.training.losses import example_losses
from compressor.training.mixture import Mixture, written_as
from compressor.training.word_substitution import DrawnSubstitution, check_substitution

CLOSE = {
    "good": ["fine", "decent", "wonderful"],
    "film": ["movie", "picture"],
    "dull": ["boring", "tiresome"],
    "thunderous": ["loud", "ear-splitting"],
}
TEXTS = ["a good film", "So dull , so DULL", "nothing here", "Thunderous , good and thunderous film"]
LENGTH = 32


def close_to(word, generator):
    return [written_as(word, other) for other in CLOSE.get(word.lower(), ())]


def substitution_of(classifier, texts=TEXTS, share=0.5, pairs=None, length=LENGTH):
    labels = [place % 2 for place in range(len(texts))]
    data = TextData(texts, pairs, labels, ["fresh", "rotten"], "here")
    return GradientSubstitution(classifier.tokenizer, data, length, close_to, share, 0)


def found_in(classifier, texts, labels):
    """Replacements, the encodings they were found in, and the embeddings."""
    substitution = substitution_of(classifier, texts)
    encodings = classifier.tokenizer(list(texts)).encodings
    inputs = pad([(own.ids, own.type_ids) for own in encodings], classifier.tokenizer.pad_token_id)
    embedded, gradient = embedding_gradient(classifier.model, inputs, labels)
    return best_of(classifier, substitution, encodings, texts, embedded, gradient), inputs, embedded


def best_of(classifier, substitution, encodings, texts, embedded, gradient):
    words = substitution._words(encodings, [texts], [np.random.default_rng(0)] * len(texts))
    return substitution.best(words, embedded, gradient, classifier.model.get_input_embeddings())


def mean_embedding(classifier, word):
    pieces = classifier.tokenizer(word, add_special_tokens=False)["input_ids"]
    return classifier.model.get_input_embeddings().weight[pieces].mean(dim=0).detach()


def test_gain_is_the_slope_of_the_loss_towards_the_close_word_and_the_largest_of_them(small_classifier):
    labels = torch.tensor([0, 1, 0, 1])
    found, inputs, embedded = found_in(small_classifier, TEXTS, labels)
    rest = {key: value for key, value in inputs.items() if key != "input_ids"}
    tokenizer = small_classifier.tokenizer

    def slope(row, own, other):
        """The loss's slope as the word's pieces move to the other word, by a central difference."""
        pieces = [
            place
            for place, (start, end) in enumerate(
                tokenizer(TEXTS, return_offsets_mapping=True)["offset_mapping"][row]
            )
            if own.start <= start < end <= own.end
        ]
        losses = []
        for step in (0.02, -0.02):
            moved = embedded.clone()
            moved[row, pieces] += step * (mean_embedding(small_classifier, other) - moved[row, pieces])
            with torch.no_grad():
                logits = small_classifier.model(inputs_embeds=moved, **rest).logits
            losses.append(example_losses(logits, labels)[row].item())
        return (losses[0] - losses[1]) / 0.04

    assert [len(row) for row in found] == [2, 2, 0, 4]
    # One of the words is in several pieces.
    assert len(tokenizer("thunderous", add_special_tokens=False)["input_ids"]) > 1
    for row, replacements in enumerate(found):
        for own in replacements:
            word = TEXTS[row][own.start : own.end].lower()
            others = close_to(TEXTS[row][own.start : own.end], None)
            assert len(others) == len(CLOSE[word])
            slopes = {other: slope(row, own, other) for other in others}
            assert own.gain == pytest.approx(slopes[own.other], rel=0.02, abs=2e-3)
            assert slopes[own.other] >= max(slopes.values()) - 2e-3


def test_the_search_leaves_the_model_as_it_is(small_classifier):
    model = small_classifier.model.train()
    frozen = model.classifier.weight.requires_grad_(False)
    gradient = torch.full_like(model.bert.pooler.dense.weight, 0.5)
    model.bert.pooler.dense.weight.grad = gradient.clone()
    inputs = pad(encode_texts(small_classifier.tokenizer, TEXTS, None, LENGTH), 0)
    first = embedding_gradient(model, inputs, torch.zeros(4, dtype=torch.int64))
    again = embedding_gradient(model, inputs, torch.zeros(4, dtype=torch.int64))
    # Without dropout, or the two would differ.
    assert torch.equal(first[1], again[1])
    assert model.training
    assert not frozen.requires_grad
    assert model.bert.pooler.dense.weight.requires_grad
    assert torch.equal(model.bert.pooler.dense.weight.grad, gradient)
    assert model.get_input_embeddings().weight.grad is None


def test_it_raises_the_loss_more_than_words_that_are_drawn(small_classifier, quotes, any_others):
    settings = (small_classifier.tokenizer, quotes, LENGTH, any_others, 0.2, 0)
    places = list(range(64))
    labels = torch.tensor(quotes.class_labels)[places]

    def loss(substitution):
        seen = substitution.seen(places, 0, small_classifier.model, labels)
        with torch.no_grad():
            return example_losses(small_classifier.model(**pad(seen, 0)).logits, labels).mean().item()

    drawn = loss(DrawnSubstitution(*settings))
    assert loss(GradientSubstitution(*settings)) > drawn + 0.2
    assert loss(DrawnSubstitution(*settings, draws=4)) > drawn


def test_each_step_sees_others_and_a_repeated_one_the_same(small_classifier):
    texts = ["good film dull " * 4] * 2
    substitution = substitution_of(small_classifier, texts)
    model, labels = small_classifier.model, torch.tensor([0, 0])
    steps = [substitution.seen([0, 1], step, model, labels) for step in range(6)]
    assert substitution.seen([0, 1], 3, model, labels) == steps[3]
    # Two places with the same text and label: the numbers of words that are replaced differ.
    assert any(step[0] != step[1] for step in steps)
    assert len({str(step[0]) for step in steps}) > 1


def changed(tokenizer, seen, texts, pairs=None, length=LENGTH):
    """How many tokens of each text differ, where all replacements are of one piece as the words are."""
    before = encode_texts(tokenizer, texts, pairs, length)
    return [
        sum(a != b for a, b in zip(old[0], new[0], strict=True))
        for old, new in zip(before, seen, strict=True)
    ]


def test_half_of_the_words_are_replaced_at_most_where_the_share_is_a_quarter(small_classifier):
    texts = ["film " * 20, "film", "none of these"]
    counts = []
    for step in range(40):
        substitution = substitution_of(small_classifier, texts, 0.25)
        seen = substitution.seen([0, 1, 2], step, small_classifier.model, torch.tensor([0, 1, 0]))
        counts.append(changed(small_classifier.tokenizer, seen, texts))
    first, second, third = np.array(counts).T
    assert first.max() <= 10
    assert second.max() <= 1
    assert not third.any()
    # What would lower the loss is not replaced, so the share is not reached everywhere.
    assert max(first) > 0


def test_both_texts_of_a_pair_are_searched_and_what_is_cut_off_is_not(small_classifier):
    tokenizer, model = small_classifier.tokenizer, small_classifier.model
    texts, pairs = ["film " * 6], ["good " * 6]
    replaced = {0: False, 1: False}
    for label in (0, 1):
        seen = substitution_of(small_classifier, texts, 1.0, pairs).seen([0], 1, model, torch.tensor([label]))
        [(ids, types)] = seen
        for token, side in zip(tokenizer.convert_ids_to_tokens(ids), types, strict=True):
            assert token in {"[CLS]", "[SEP]", "film", "good", *CLOSE["film"], *CLOSE["good"]}
            replaced[side] |= token in CLOSE["film"] + CLOSE["good"]
    assert all(replaced.values())
    substitution = substitution_of(small_classifier, ["so film good dull"], length=4)
    encodings = tokenizer(["so film good dull"], truncation=True, max_length=4).encodings
    inputs = pad([(own.ids, own.type_ids) for own in encodings], 0)
    embedded, gradient = embedding_gradient(model, inputs, torch.tensor([0]))
    [found] = best_of(small_classifier, substitution, encodings, ["so film good dull"], embedded, gradient)
    assert [(own.start, own.end) for own in found] == [(3, 7)]


def test_words_may_be_dropped_or_misspelt_where_it_raises_the_loss(small_classifier, quotes):
    tokenizer, model = small_classifier.tokenizer, small_classifier.model
    kinds = [(1.0, lambda word, _: [""]), (1.0, lambda word, _: [word[::-1]])]
    substitution = GradientSubstitution(tokenizer, quotes, LENGTH, Mixture(kinds).replacements, 0.5, 0)
    places = list(range(32))
    labels = torch.tensor(quotes.class_labels)[places]
    seen = substitution.seen(places, 0, model, labels)
    before = encode_texts(tokenizer, quotes.texts[:32], None, LENGTH)
    assert any(len(new[0]) < len(old[0]) for new, old in zip(seen, before, strict=True))

    def loss(encoded):
        with torch.no_grad():
            return example_losses(model(**pad(encoded, 0)).logits, labels).mean().item()

    assert loss(seen) > loss(before) + 0.2


@pytest.mark.parametrize("options", [FinetuneConfig, SoupConfig])
def test_draws_are_of_words_that_are_drawn(options):
    both = {"substitution_choice": "gradient", "substitution_draws": 4}
    with pytest.raises(
        UserError, match="substitution_draws: the worst of 4 draws needs words that are drawn"
    ):
        check_substitution(options.model_validate(both))
    check_substitution(options(substitution_choice="gradient"))
    check_substitution(options(substitution_draws=4))


@pytest.mark.cuda
def test_a_gpu_finds_the_same_replacements(small_classifier):
    labels = torch.tensor([0, 1, 0, 1])
    substitution = substitution_of(small_classifier)
    here = substitution.seen([0, 1, 2, 3], 0, small_classifier.model, labels)
    there = substitution.seen([0, 1, 2, 3], 0, small_classifier.model.to("cuda"), labels.to("cuda"))
    assert here == there
