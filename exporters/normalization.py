"""A classifier whose tokenizer normalizes texts, and what the normalization does to its answers."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.data.texts import TextData
from compressor.models.classifier import Classifier
from compressor.models.normalization.steps import UNICODE_VERSION
from compressor.models.normalization.tokenizers import (
    has_normalization,
    normalized_classifier,
    plain_classifier,
)
from compressor.options.normalization import NormalizationConfig
from compressor.system.context import Context
from exporters.retokenized import Retokenized, compare_tokenizers


@dataclass(frozen=True)
class NormalizationFacts(Retokenized):
    """What text normalization does to texts and answers.

    Attributes:
        unicode: version of the data on homoglyphs.
        by_export: whether the export added it; otherwise the model's tokenizer has it.
    """

    unicode: str
    by_export: bool

    @property
    def summary(self) -> str:
        """One line on the texts and labels that change."""
        changed = ""
        if self.label_agreement is not None:
            changed = f", {1 - self.label_agreement:.1%} have another label"
        return (
            f"text normalization (Unicode {self.unicode}) changes the tokens of {self.other_tokens:.1%} of "
            f"{self.examples} texts{changed}"
        )


def with_normalized_text(
    classifier: Classifier, compared: TextData, config: NormalizationConfig, context: Context
) -> tuple[Classifier, NormalizationFacts | None]:
    """Return a classifier as it is exported, and what its text normalization does; None without any.

    Args:
        compared: texts on which answers with and without it are compared.

    Raises:
        UserError: as `normalized_classifier`.
    """
    has_own = has_normalization(classifier.tokenizer)
    if not has_own and not config.normalize_text:
        return classifier, None
    normalized = normalized_classifier(classifier)
    plain = plain_classifier(classifier) if has_own else classifier
    same_ids = range(len(classifier.tokenizer))
    found = compare_tokenizers(plain, normalized, same_ids, compared, context.columns.max_length)
    facts = NormalizationFacts(**vars(found), unicode=UNICODE_VERSION, by_export=not has_own)
    context.progress.log(facts.summary)
    return normalized, facts
