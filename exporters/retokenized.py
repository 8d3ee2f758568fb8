"""What another tokenizer does to a classifier's answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.data.labels import task_of
from compressor.data.texts import TextData
from compressor.models.batching import Encoded, encode
from compressor.models.classifier import Classifier
from compressor.models.predictors import TorchPredictor, predict_encoded
from exporters.mixed import divergence
from exporters.verify import variance_kept

# Texts that are answered at a time.
BATCH_SIZE = 64


@dataclass(frozen=True)
class Retokenized:
    """What another tokenizer does to texts, and to a classifier's answers.

    Attributes:
        examples: number of texts of the comparison.
        other_tokens: share of these that are tokenized otherwise; the logits of all others are the same, bit
            for bit.
        tokens: number of tokens of these texts `before` and `after`, after truncation.
        label_agreement: share of these with the same label as before; None of a regression.
        variance_kept: of a regression, `exporters.verify.variance_kept` of its answers; None of classes, or
            if the answers before are all the same.
        reference_accuracy: before; None where the texts have no labels.
        accuracy: after, likewise.
        mean_divergence: mean Kullback-Leibler divergence of the classes from those before; of a regression
            the mean squared difference.
    """

    examples: int
    other_tokens: float
    tokens: dict[str, int]
    label_agreement: float | None
    variance_kept: float | None
    reference_accuracy: float | None
    accuracy: float | None
    mean_divergence: float


def compare_tokenizers(
    classifier: Classifier, other: Classifier, ids: Sequence[int], data: TextData, max_length: int
) -> Retokenized:
    """Compare the answers of a classifier with those that it gives with another tokenizer.

    Args:
        other: the classifier with that tokenizer, and with word embeddings for its ids.
        ids: of the classifier's tokenizer, by the ids of the other one.
    """
    before, after = (encode(one.tokenizer, data, max_length) for one in (classifier, other))
    renumbered = [([ids[new] for new in own], segments) for own, segments in after]
    is_same = np.array([old == new for old, new in zip(before, renumbered, strict=True)])
    expected = _answers(classifier, before, is_same)
    found = _answers(other, after, is_same)
    if not np.array_equal(expected[is_same], found[is_same]):
        raise RuntimeError(
            f"{classifier.layout.title}: the same tokens give other answers with fewer word embeddings; the "
            f"layout's keep_words misses what else depends on ids"
        )
    is_regression = task_of(classifier.label_names) == "regression"
    labels, new_labels = expected.argmax(axis=1), found.argmax(axis=1)
    known = None if data.labels is None else np.array(data.labels)
    wide = [logits[:, 0].astype(np.float64) for logits in (expected, found)]
    return Retokenized(
        examples=len(data),
        other_tokens=float(1 - is_same.mean()),
        tokens={"before": _count(before), "after": _count(after)},
        label_agreement=None if is_regression else float((labels == new_labels).mean()),
        variance_kept=variance_kept(*wide) if is_regression else None,
        reference_accuracy=None if known is None else float((labels == known).mean()),
        accuracy=None if known is None else float((new_labels == known).mean()),
        mean_divergence=divergence(expected, found),
    )


def _answers(
    classifier: Classifier, encoded: Sequence[Encoded], is_same: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Logits `(texts, labels)`; texts that both tokenizers encode alike share batches with no others.

    Batches of other shapes may differ in the last bits.
    """
    predictor = TorchPredictor(classifier)
    found = np.empty((len(encoded), len(classifier.label_names)), dtype=np.float32)
    for places in (np.flatnonzero(is_same).tolist(), np.flatnonzero(~is_same).tolist()):
        if places:
            found[places] = predict_encoded(predictor, [encoded[place] for place in places], BATCH_SIZE)
    return found


def _count(encoded: Iterable[Encoded]) -> int:
    return sum(len(ids) for ids, _ in encoded)
