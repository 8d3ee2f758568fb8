"""TextAttack's recipes with their published constraints, on local resources."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from compressor.attacks.resources import AttackResources, attack_resources, import_textattack
from compressor.attacks.victims import Victim
from compressor.errors import UserError, first_line
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.lexicon.synonyms import Synonyms
from compressor.lexicon.word_vectors import WordVectors
from compressor.options import AttackConfig, attack_named
from compressor.system.console import Progress

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

    The recipes are TextAttack's, with their published constraints. What they would download is
    replaced by parts of the same settings on local resources. So it is with recipes that packages register.

    Raises:
        UserError: a resource is missing or broken, or the recipe that a package registers cannot be imported.
    """
    if "textattack" not in sys.modules:
        progress.log("Loading TextAttack")
    textattack = import_textattack()
    resources = attack_resources(config, victim.device, progress)
    _compute_on(textattack, victim.device if resources.masked_language_model else torch.device("cpu"))
    if resources.word_vectors is not None:
        _provide_word_vectors(textattack, resources.word_vectors)
    recipe = _recipe_of(config.attack)
    with _local_parts(textattack, recipe, resources):
        attack = recipe.build(victim, **config.attack_options)
    attack.constraints = [_localized(c, resources.encoder) for c in attack.constraints]
    attack.pre_transformation_constraints.append(_words_seen(victim.max_length))
    if config.max_words_changed is not None:
        overlap = textattack.constraints.overlap
        attack.constraints.append(overlap.MaxWordsPerturbed(max_percent=config.max_words_changed))
    if config.query_budget is not None:
        attack.goal_function.query_budget = config.query_budget
        _search_within_budget(attack)
    return attack, resources.description


def _search_within_budget(attack: Attack) -> None:
    """Let no search begin where the first query was the last: not every one bears that."""
    goal, search = attack.goal_function, attack.search_method.perform_search

    def perform_search(initial_result: Any) -> Any:
        return initial_result if goal.num_queries >= goal.query_budget else search(initial_result)

    attack.search_method.perform_search = perform_search


def _recipe_of(name: str) -> Any:
    """The recipe of an attack: a class of TextAttack's, of ours, or of the package that registers it."""
    place = attack_named(name).recipe
    module, _, attribute = place.rpartition(":")
    if not module:
        from compressor.attacks import adapted

        return getattr(adapted, attribute)
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a package's module may raise anything
        raise UserError(
            f"attack: recipe {place} of {name!r} cannot be imported: {type(error).__name__}: "
            f"{first_line(error)}; repair or remove the package that registers it"
        ) from error


def _words_seen(max_length: int) -> Any:
    """A constraint to words that the model may see, at a token a word: changing others changes nothing.

    Without it a text of ten thousand words is searched through to its end.
    """
    from textattack.constraints import PreTransformationConstraint

    class WordsSeen(PreTransformationConstraint):
        """The first words of each text of the input."""

        def _get_modifiable_indices(self, current_text: Any) -> set[int]:
            indices, start = set(), 0
            for words in current_text.words_per_input:
                indices |= set(range(start, start + min(len(words), max_length)))
                start += len(words)
            return indices

    return WordsSeen()


def _compute_on(textattack: Any, device: torch.device) -> None:
    """Where TextAttack's own parts compute; by itself it takes a GPU wherever there is one.

    A masked language model is worth a GPU. Cosines of two word vectors are not: the way there takes longer.
    """
    textattack.shared.utils.device = device


def _provide_word_vectors(textattack: Any, vectors: WordVectors) -> None:
    """Put word vectors into the slot of TextAttack's from which its recipes take them."""
    textattack.shared.utils.GLOBAL_OBJECTS[_EMBEDDING_SLOT] = textattack.shared.WordEmbedding(
        vectors.vectors,
        {word: index for index, word in enumerate(vectors.words)},
        dict(enumerate(vectors.words)),
        vectors.neighbours,
    )


@contextmanager
def _local_parts(textattack: Any, recipe: Any, resources: AttackResources) -> Iterator[None]:
    """While a recipe is built, parts that would download something, or need gradients, are local ones."""
    swaps = textattack.transformations

    class HomoglyphSwap(swaps.WordSwapHomoglyphSwap):  # type: ignore[name-defined]
        """TextAttack's, without the table for whole texts that its package lacks: words need none."""

        def __init__(self, **settings: Any) -> None:
            try:
                super().__init__(**settings)
            except OSError:
                self.homos_intentional: dict[str, list[str]] = {}

    local: dict[str, Any] = {
        "WordSwapHomoglyphSwap": HomoglyphSwap,
        "GreedyWordSwapWIR": partial(_without_gradients, textattack.search_methods.GreedyWordSwapWIR),
    }
    if resources.encoder is not None:
        local["SBERT"] = partial(_sentence_constraint, resources.encoder)
    if resources.masked_language_model is not None:
        local["WordSwapMaskedLM"] = partial(
            swaps.WordSwapMaskedLM,
            masked_language_model=resources.masked_language_model.model,
            tokenizer=resources.masked_language_model.tokenizer,
            max_length=resources.masked_language_model.longest,
        )
    if resources.synonyms is not None:
        local["WordSwapWordNet"] = partial(synonym_swap, resources.synonyms)
    module = sys.modules[recipe.__module__]
    replaced = {name: getattr(module, name) for name in local if hasattr(module, name)}
    try:
        for name in replaced:
            setattr(module, name, local[name])
        yield
    finally:
        for name, own in replaced.items():
            setattr(module, name, own)


def _without_gradients(search: Any, wir_method: str = "unk", **settings: Any) -> Any:
    """TextAttack's greedy search; where gradients would order the words, their deletions do."""
    return search("delete" if wir_method == "gradient" else wir_method, **settings)


def _sentence_constraint(encoder: SentenceEncoder, *, model_name: str | None = None, **settings: Any) -> Any:
    """TextAttack's constraint on sentence embeddings, over a local encoder.

    Args:
        model_name: of the encoder that TextAttack would download.
    """
    from textattack.constraints.semantics.sentence_encoders import SentenceEncoder as EncoderConstraint

    del model_name

    class LocalSentenceEncoder(EncoderConstraint):
        """TextAttack's encoder constraint over a local encoder."""

        def __init__(self) -> None:
            super().__init__(**settings)
            self.model = encoder

        def encode(self, sentences: Sequence[str]) -> Any:
            return encoder.encode(sentences)

    return LocalSentenceEncoder()


def synonym_swap(synonyms: Synonyms) -> Any:
    """TextAttack's swap by WordNet, on given synonyms; unlike there their order is always the same."""
    textattack = import_textattack()

    class SynonymSwap(textattack.transformations.WordSwap):  # type: ignore[name-defined]
        """A word's synonyms in its place."""

        def _get_replacement_words(self, word: str) -> list[str]:
            found = synonyms.of.get(word.lower(), [])
            return [other for other in found if textattack.shared.utils.is_one_word(other)]

    return SynonymSwap()


def _localized(constraint: Any, encoder: SentenceEncoder | None) -> Any:
    """`constraint`, or one of ours with the same settings where it would download something.

    Args:
        encoder: is there for each recipe that has a constraint on sentence embeddings.
    """
    from textattack.constraints.grammaticality import PartOfSpeech
    from textattack.constraints.semantics.sentence_encoders import UniversalSentenceEncoder

    class TextBlobPartOfSpeech(PartOfSpeech):
        """TextAttack's part-of-speech constraint over TextBlob's tagger."""

        def _get_pos(self, before_ctx: list[str], word: str, after_ctx: list[str]) -> str:
            return universal_tags((*before_ctx, word, *after_ctx))[len(before_ctx)]

    if isinstance(constraint, UniversalSentenceEncoder) and encoder is not None:
        return _sentence_constraint(
            encoder,
            threshold=constraint.threshold,
            metric=constraint.metric,
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


def has_words(text: str) -> bool:
    """Whether TextAttack finds a word in `text`."""
    return bool(import_textattack().shared.utils.words_from_text(text))


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
