"""TextAttack's recipes with their published constraints, on local resources."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from compressor.console import Progress
from compressor.recipe import AttackConfig
from compressor.robustness.resources import (
    SentenceEncoder,
    TextFoolerResources,
    import_textattack,
    textfooler_resources,
)
from compressor.robustness.victims import Victim

if TYPE_CHECKING:
    from textattack import Attack

# TextBlob's short names of the universal tags; TextAttack compares with the long ones.
UNIVERSAL_TAGS = {
    "NN": "NOUN",
    "VB": "VERB",
    "JJ": "ADJ",
    "RB": "ADV",
    "PR": "PRON",
    "DT": "DET",
    "PP": "ADP",
    "NO": "NUM",
    "CJ": "CONJ",
    "UH": "X",
    "PT": "PRT",
    ".": ".",
    "X": "X",
}
_EMBEDDING_SLOT = "textattack_counterfitted_GLOVE_embedding"


def build_attack(config: AttackConfig, victim: Victim, progress: Progress) -> tuple[Attack, dict[str, str]]:
    """The attack of that name on `victim`, and a description of the resources it uses.

    Raises:
        UserError: a resource is missing or broken.
    """
    if "textattack" not in sys.modules:
        progress.log("Loading TextAttack")
    textattack = import_textattack()
    recipes = textattack.attack_recipes
    if config.attack == "deepwordbug":
        return recipes.DeepWordBugGao2018.build(victim), {}
    resources = textfooler_resources(config.word_vectors, config.sentence_encoder, progress)
    return _textfooler(textattack, victim, resources), resources.description


def _textfooler(textattack: Any, victim: Victim, resources: TextFoolerResources) -> Attack:
    """TextFooler as published, with local word vectors, sentence encoder and tagger.

    The recipe takes its word vectors from a slot of TextAttack's; its two other downloads, the
    Universal Sentence Encoder and NLTK's tagger, are replaced by constraints of the same settings.
    """
    vectors = resources.word_vectors
    textattack.shared.utils.GLOBAL_OBJECTS[_EMBEDDING_SLOT] = textattack.shared.WordEmbedding(
        vectors.vectors,
        {word: index for index, word in enumerate(vectors.words)},
        dict(enumerate(vectors.words)),
        vectors.neighbours,
    )
    attack = textattack.attack_recipes.TextFoolerJin2019.build(victim)
    attack.constraints = [_localized(c, resources.encoder) for c in attack.constraints]
    return attack


def _localized(constraint: Any, encoder: SentenceEncoder) -> Any:
    """`constraint`, or one of ours with the same settings where it would download something."""
    from textattack.constraints.grammaticality import PartOfSpeech
    from textattack.constraints.semantics.sentence_encoders import (
        SentenceEncoder as EncoderConstraint,
    )
    from textattack.constraints.semantics.sentence_encoders import (
        UniversalSentenceEncoder,
    )

    class LocalSentenceEncoder(EncoderConstraint):
        """TextAttack's encoder constraint over a local encoder."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.model = encoder

        def encode(self, sentences: Sequence[str]) -> Any:
            return encoder.encode(sentences)

    class TextBlobPartOfSpeech(PartOfSpeech):
        """TextAttack's part-of-speech constraint over TextBlob's tagger."""

        def _get_pos(self, before_ctx: list[str], word: str, after_ctx: list[str]) -> str:
            return universal_tags((*before_ctx, word, *after_ctx))[len(before_ctx)]

    if isinstance(constraint, UniversalSentenceEncoder):
        return LocalSentenceEncoder(
            threshold=constraint.threshold,
            metric="angular",
            compare_against_original=constraint.compare_against_original,
            window_size=constraint.window_size,
            skip_text_shorter_than_window=constraint.skip_text_shorter_than_window,
        )
    if isinstance(constraint, PartOfSpeech):
        return TextBlobPartOfSpeech(
            tagset="universal",
            allow_verb_noun_swap=constraint.allow_verb_noun_swap,
            compare_against_original=constraint.compare_against_original,
        )
    return constraint


def universal_tags(words: Sequence[str]) -> list[str]:
    """Universal part-of-speech tag of each word in its context.

    Raises:
        ValueError: the tagger split or dropped a word.
    """
    from textblob._text import penntreebank2universal
    from textblob.en import tag

    tagged = tag(" ".join(words), tokenize=False)
    if len(tagged) != len(words):
        raise ValueError(f"the tagger made {len(tagged)} words of {len(words)}: {' '.join(words)!r}")
    short = [str(penntreebank2universal(word, penn)[1]) for word, penn in tagged]
    # A proper noun carries its kind behind a hyphen, as in NN-PERS.
    return [UNIVERSAL_TAGS[name.split("-")[0]] for name in short]
