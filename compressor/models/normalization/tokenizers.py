"""Tokenizers of transformers with and without text normalization."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compressor.errors import UserError
from compressor.models.classifier import Classifier, rewritten_tokenizer
from compressor.models.normalization.steps import is_normalized, normalized_content, plain_content
from compressor.models.preprocessing import TOKENIZER
from compressor.models.transformers_versions import as_generic, decisive_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def has_normalization(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer normalizes texts as `normalized_classifier` makes it."""
    return bool(tokenizer.is_fast) and is_normalized(_content(tokenizer))


def normalized_classifier(classifier: Classifier) -> Classifier:
    """Return a classifier of the same model whose tokenizer normalizes texts; itself if it does.

    Raises:
        UserError: a tokenizer without a `tokenizer.json`, or one that transformers reads otherwise than it is
            written.
    """
    tokenizer = classifier.tokenizer
    if not tokenizer.is_fast:
        raise UserError(
            f"{classifier.source}: its tokenizer, {type(tokenizer).__name__}, has no {TOKENIZER}, which text "
            f"normalization is a part of; leave --normalize-text out"
        )
    if has_normalization(tokenizer):
        return classifier
    found = _with_content(tokenizer, normalized_content(_content(tokenizer)))
    return Classifier(classifier.model, found, classifier.source)


def plain_classifier(classifier: Classifier) -> Classifier:
    """Return a classifier of the same model whose tokenizer does not normalize texts.

    Args:
        classifier: with a tokenizer that does.

    Raises:
        UserError: as `normalized_classifier`.
    """
    found = _with_content(classifier.tokenizer, plain_content(_content(classifier.tokenizer)))
    return Classifier(classifier.model, found, classifier.source)


def _content(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return content


def _with_content(tokenizer: PreTrainedTokenizerBase, content: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    # The class of a family would have the family's normalizer.
    found = rewritten_tokenizer(tokenizer, content, lambda config: as_generic(config, tokenizer))
    if decisive_parts(_content(found)) != decisive_parts(content):
        raise UserError(
            f"{TOKENIZER}: transformers reads another tokenizer from it than {type(tokenizer).__name__} with "
            f"text normalization; leave --normalize-text out"
        )
    return found
