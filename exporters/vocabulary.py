"""A classifier with a smaller vocabulary, and how its answers compare with those of the whole one.

Pieces are counted on texts that are not those of the comparison. A text that is tokenized as before has the
same answer, bit for bit, which is checked; the others are measured.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compressor.data.labels import task_of
from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.errors import UserError
from compressor.models.batching import CHUNK, Encoded, encode
from compressor.models.classifier import Classifier, load_tokenizer
from compressor.models.predictors import TorchPredictor, predict_encoded
from compressor.models.preprocessing import TOKENIZER
from compressor.models.transformers_versions import TOKENIZER_CONFIG, save_tokenizer, with_new_ids
from compressor.models.vocabulary import choose_pieces, keep_pieces
from compressor.options import VocabularyConfig
from compressor.system.context import Context
from compressor.system.files import read_json, write_json
from exporters.mixed import divergence
from exporters.texts import places_of_others
from exporters.verify import variance_kept

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Texts that are answered at a time.
BATCH_SIZE = 64


@dataclass(frozen=True)
class VocabularyFacts:
    """What was kept of a vocabulary, and what that does to the answers.

    Attributes:
        pieces: their number `before` and `after`, with special tokens.
        coverage: share of the counted pieces that are kept.
        texts: number of texts that pieces were counted on.
        data_fingerprint: of these texts.
        examples: number of texts of the comparison, none of which was counted.
        other_tokens: share of these that are tokenized otherwise; the logits of all others are the same, bit
            for bit.
        tokens: number of tokens of these texts `before` and `after`, after truncation.
        label_agreement: share of these with the label of the whole vocabulary; None of a regression.
        variance_kept: of a regression, `variance_kept` of its answers; None of classes, or if the answers of
            the whole vocabulary are all the same.
        reference_accuracy: with the whole vocabulary; None where the texts have no labels.
        accuracy: with the smaller one, likewise.
        mean_divergence: mean Kullback-Leibler divergence of the classes from those of the whole vocabulary;
            of a regression the mean squared difference.
        least_agreement: the bound on `label_agreement`, or `variance_kept`, that was given.
    """

    pieces: dict[str, int]
    coverage: float
    texts: int
    data_fingerprint: str
    examples: int
    other_tokens: float
    tokens: dict[str, int]
    label_agreement: float | None
    variance_kept: float | None
    reference_accuracy: float | None
    accuracy: float | None
    mean_divergence: float
    least_agreement: float

    @property
    def summary(self) -> str:
        """One line on what is kept and how answers compare."""
        before, after = (self.pieces[key] for key in ("before", "after"))
        same = ""
        if self.label_agreement is not None:
            same = f", labels agree with those of the whole vocabulary on {self.label_agreement:.1%}"
        elif self.variance_kept is not None:
            same = f", {self.variance_kept:.1%} of the variance of the answers is kept"
        return (
            f"{after:,} of {before:,} pieces of the vocabulary ({self.coverage:.2%} of those counted); "
            f"{self.other_tokens:.1%} of {self.examples} texts are tokenized otherwise{same}"
        )


def with_smaller_vocabulary(
    classifier: Classifier, source: str | None, proof: TextData, config: VocabularyConfig, context: Context
) -> tuple[Classifier, VocabularyFacts | None]:
    """Return a classifier as it is exported: `smaller_classifier`, or itself and None without a source.

    Args:
        proof: texts of the parity check.

    Raises:
        UserError: as `smaller_classifier`, or options of a smaller vocabulary without a source.
    """
    if source is not None:
        return smaller_classifier(classifier, source, proof, config, context)
    for name, field in VocabularyConfig.model_fields.items():
        if getattr(config, name) != field.default:
            raise UserError(f"{name}: is an option of --vocabulary alone; give texts with --vocabulary")
    return classifier, None


def smaller_classifier(
    classifier: Classifier, source: str, compared: TextData, config: VocabularyConfig, context: Context
) -> tuple[Classifier, VocabularyFacts]:
    """Return a copy of a classifier with the pieces that texts need, and how its answers compare.

    Args:
        source: file or hub id of the texts.
        compared: texts on which answers are compared; they are not counted.

    Raises:
        UserError: a tokenizer that cannot lose pieces, no texts to count on, or answers that agree less often
            than the options allow.
    """
    names = classifier.label_names
    drawn = load_text_data(source, context.columns, "vocabulary", label_names=names, needs_labels=False)
    log_notes(drawn, context.progress, labels=False)
    counted = drawn.select(places_of_others(drawn, compared))
    if not len(counted):
        raise UserError(
            f"--vocabulary {source}: all of its {len(drawn)} texts are those that answers are compared on, "
            f"and an agreement on texts that were counted says nothing of new ones; give other texts, or "
            f"others with --data"
        )
    smaller, kept, coverage = _keep_counted(classifier, counted, config.vocabulary_coverage)
    facts = VocabularyFacts(
        pieces={"before": len(classifier.tokenizer), "after": len(kept)},
        coverage=coverage,
        texts=len(counted),
        data_fingerprint=counted.fingerprint,
        least_agreement=config.vocabulary_agreement,
        **_compare(classifier, smaller, kept, compared, context.columns.max_length),
    )
    context.progress.log(facts.summary)
    check_agreement(facts)
    return smaller, facts


def check_agreement(facts: VocabularyFacts) -> None:
    """Raise a `UserError` if answers agree with those of the whole vocabulary less often than they must."""
    found = facts.variance_kept if facts.label_agreement is None else facts.label_agreement
    if found is not None and found < facts.least_agreement:
        raise UserError(
            f"vocabulary: {facts.summary}, less than {facts.least_agreement:.1%}; give a larger "
            f"--vocabulary-coverage, more texts with --vocabulary, or a smaller --vocabulary-agreement"
        )


def _keep_counted(
    classifier: Classifier, counted: TextData, coverage: float
) -> tuple[Classifier, list[int], float]:
    """Return a copy with the pieces that texts need, the old ids of these, and the coverage."""
    tokenizer = classifier.tokenizer
    if not tokenizer.is_fast:
        raise UserError(
            f"{classifier.source}: its tokenizer, {type(tokenizer).__name__}, has no {TOKENIZER}, without "
            f"which its vocabulary cannot be made smaller; keep it whole"
        )
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    counts = count_pieces(content, [*counted.texts, *(counted.pairs or ())])
    try:
        chosen = choose_pieces(content, counts, coverage)
    except UserError as error:
        raise UserError(f"{classifier.source}: {error}") from error
    own = smaller_tokenizer(tokenizer, chosen.kept)
    model = copy.deepcopy(classifier.model)
    classifier.layout.keep_words(model, chosen.kept, int(own.pad_token_id))
    _renumber_tokens(model.config, chosen.kept)
    return Classifier(model, own, classifier.source), chosen.kept, chosen.coverage


def count_pieces(content: dict[str, Any], texts: Sequence[str]) -> Counter[int]:
    """Count the pieces of whole texts, by their ids, without the tokens that are put around texts.

    Args:
        content: of `tokenizer.json`.
    """
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(json.dumps(content))
    backend.no_truncation()
    backend.no_padding()
    found: Counter[int] = Counter()
    for start in range(0, len(texts), CHUNK):
        for encoding in backend.encode_batch(list(texts[start : start + CHUNK]), add_special_tokens=False):
            found.update(encoding.ids)
    return found


def smaller_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerBase:
    """Return a tokenizer with some of its pieces, as if it had been loaded from such files.

    Args:
        kept: of `choose_pieces`.

    Raises:
        UserError: the tokenizer does not give the pieces the ids that the model has them under.
    """
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        save_tokenizer(tokenizer, directory)
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        config = with_new_ids(read_json(directory / TOKENIZER_CONFIG), kept)
        # Others hold the whole vocabulary, or old ids.
        for file in directory.iterdir():
            file.unlink()
        write_json(directory / TOKENIZER_CONFIG, config)
        write_json(directory / TOKENIZER, keep_pieces(content, kept))
        found = load_tokenizer(folder)
    pieces = tokenizer.convert_ids_to_tokens(list(kept))
    if len(found) != len(kept) or found.convert_ids_to_tokens(list(range(len(kept)))) != pieces:
        raise UserError(
            f"vocabulary: {TOKENIZER}: the ids of the tokenizer {type(tokenizer).__name__} have gaps or "
            f"do not fit its added tokens, so its vocabulary cannot be made smaller; keep it whole"
        )
    return found


def _renumber_tokens(config: Any, kept: Sequence[int]) -> None:
    """Give a model's configuration the new ids of its special tokens; those that are gone have none."""
    places = {old: new for new, old in enumerate(kept)}
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, places.get(value))


def _compare(
    whole: Classifier, smaller: Classifier, kept: Sequence[int], data: TextData, max_length: int
) -> dict[str, Any]:
    """Compare the answers of both vocabularies; the result is a part of `VocabularyFacts`.

    Args:
        kept: old ids, in the order of the new ones.
    """
    before, after = (encode(one.tokenizer, data, max_length) for one in (whole, smaller))
    renumbered = [([kept[new] for new in ids], segments) for ids, segments in after]
    is_same = np.array([old == new for old, new in zip(before, renumbered, strict=True)])
    expected = _answers(whole, before, is_same)
    found = _answers(smaller, after, is_same)
    if not np.array_equal(expected[is_same], found[is_same]):
        raise RuntimeError(
            f"{whole.layout.title}: the same tokens give other answers with fewer word embeddings; the "
            f"layout's keep_words misses what else depends on ids"
        )
    is_regression = task_of(whole.label_names) == "regression"
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
    """Logits `(texts, labels)`; texts that both vocabularies tokenize alike share batches with no others.

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
