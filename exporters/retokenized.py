"""What another tokenizer does to a classifier's answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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


def compare_tokenizers(
    classifier: Classifier, other: Classifier, ids: Sequence[int], data: TextData, max_length: int
) -> dict[str, Any]:
    """Compare the answers of a classifier with those that it gives with another tokenizer.

    Args:
        other: the classifier with that tokenizer, and with word embeddings for its ids.
        ids: of the classifier's tokenizer, by the ids of the other one.

    Returns:
        `examples`, `other_tokens`, `tokens`, `label_agreement`, `variance_kept`, `reference_accuracy`,
        `accuracy` and `mean_divergence`, as `exporters.vocabulary.VocabularyFacts` describes them.
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
    return {
        "examples": len(data),
        "other_tokens": float(1 - is_same.mean()),
        "tokens": {"before": _count(before), "after": _count(after)},
        "label_agreement": None if is_regression else float((labels == new_labels).mean()),
        "variance_kept": variance_kept(*wide) if is_regression else None,
        "reference_accuracy": None if known is None else float((labels == known).mean()),
        "accuracy": None if known is None else float((new_labels == known).mean()),
        "mean_divergence": divergence(expected, found),
    }


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
