"""A classifier with a smaller vocabulary, and how its answers compare with those of the whole one.

Pieces are counted on texts that are not those of the comparison. A text that is tokenized as before has the
same answer, bit for bit, which is checked; the others are measured.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.errors import UserError
from compressor.models.batching import CHUNK
from compressor.models.classifier import Classifier, rewritten_tokenizer
from compressor.models.preprocessing import TOKENIZER
from compressor.models.transformers_versions import with_new_ids
from compressor.models.vocabulary import choose_pieces, keep_pieces
from compressor.options import VocabularyConfig
from compressor.system.context import Context
from exporters.retokenized import Retokenized, compare_tokenizers
from exporters.texts import places_of_others

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class VocabularyFacts(Retokenized):
    """What was kept of a vocabulary, and what that does to the answers.

    Attributes:
        pieces: their number `before` and `after`, with special tokens.
        coverage: share of the counted pieces that are kept.
        texts: number of texts that pieces were counted on, none of which is compared.
        data_fingerprint: of these texts.
        least_agreement: the bound on `label_agreement`, or `variance_kept`, that was given.
    """

    pieces: dict[str, int]
    coverage: float
    texts: int
    data_fingerprint: str
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
    smaller, kept, coverage = _keep_counted(classifier, counted, config)
    found = compare_tokenizers(classifier, smaller, kept, compared, context.columns.max_length)
    facts = VocabularyFacts(
        **vars(found),
        pieces={"before": len(classifier.tokenizer), "after": len(kept)},
        coverage=coverage,
        texts=len(counted),
        data_fingerprint=counted.fingerprint,
        least_agreement=config.vocabulary_agreement,
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
            f"--vocabulary-coverage or --vocabulary-pieces, more texts with --vocabulary, or a smaller "
            f"--vocabulary-agreement"
        )


def _keep_counted(
    classifier: Classifier, counted: TextData, config: VocabularyConfig
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
        chosen = choose_pieces(content, counts, config.vocabulary_coverage, config.vocabulary_pieces)
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
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    found = rewritten_tokenizer(
        tokenizer, keep_pieces(content, kept), lambda config: with_new_ids(config, kept)
    )
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
