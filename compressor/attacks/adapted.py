"""Recipes of TextAttack's in a form that runs offline, on every text and against any class.

Imported as a package's recipes are: when TextAttack is ready.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from scipy.optimize import differential_evolution
from textattack import Attack
from textattack.constraints.pre_transformation import RepeatModification
from textattack.goal_function_results import GoalFunctionResultStatus
from textattack.goal_functions import UntargetedClassification
from textattack.search_methods import DifferentialEvolution, GreedySearch
from textattack.shared import AttackedText
from textattack.transformations import (
    CompositeTransformation,
    WordSwapChangeNumber,
    WordSwapContract,
    WordSwapDeletions,
    WordSwapExtend,
    WordSwapHomoglyphSwap,
    WordSwapInvisibleCharacters,
    WordSwapReorderings,
)

from compressor.attacks.victims import Victim


class BadCharacters:
    """Imperceptible changes of characters (Boucher et al., IEEE S&P 2022), found by differential evolution.

    Unlike TextAttack's recipe, whose goals are targeted, it is after any class but the text's own, as the
    other attacks are. Homoglyphs are those of TextAttack's table for words: its package lacks Unicode's.
    """

    @staticmethod
    def build(victim: Victim, kind: str, changes: int, population: int, generations: int) -> Attack:
        """Build the attack; the options are those of `BadCharactersConfig`."""
        transformation = _imperceptible(kind)
        search = ImperceptibleSearch(
            transformation, victim.max_length, popsize=population, maxiter=generations, max_perturbs=changes
        )
        return Attack(UntargetedClassification(victim), [], transformation, search)


def _imperceptible(kind: str) -> Any:
    """Return the transformation of a kind of imperceptible changes."""
    kinds = {
        "invisible": WordSwapInvisibleCharacters,
        "deletions": WordSwapDeletions,
        "reorderings": WordSwapReorderings,
    }
    if kind != "homoglyphs":
        return kinds[kind]()
    swap = WordSwapHomoglyphSwap()
    swap.homos_intentional = {character: [twin] for character, twin in swap.homos.items()}
    return swap


class _SearchEndedError(Exception):
    """The search found what it looked for, or has no query left."""


class ImperceptibleSearch(DifferentialEvolution):
    """TextAttack's search by differential evolution, which ends at the first success and at the query budget.

    Of a pair it changes the second text, and of a text the words that the model may see.

    Args:
        first_words: number of words from the start of a text that may change.
        settings: of TextAttack's search.
    """

    def __init__(self, transformation: Any, first_words: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._transformation = transformation
        self._first_words = first_words

    def perform_search(self, initial_result: Any) -> Any:
        """Return the best result: a success, or else the lowest probability of the text's own class."""
        original, best = initial_result.attacked_text, initial_result
        *unchanged, (name, text) = original._text_input.items()
        seen = AttackedText(text).text_of_first_n_words(self._first_words)
        bounds, precomputed = self.get_bounds_and_precomputed(AttackedText(seen), self.max_perturbs)
        if any(low == high for low, high in bounds):
            # No character of it can change.
            return initial_result

        def energy(vector: Sequence[float]) -> float:
            nonlocal best
            # It moves places within the vector, which is the evolution's own.
            changed = self.apply_perturbation(AttackedText(seen), list(vector), precomputed).text
            candidate = AttackedText(
                OrderedDict([*unchanged, (name, changed + text[len(seen) :])]),
                {"last_transformation": self._transformation},
            )
            if not self.filter_transformations([candidate], original, original):
                return float("inf")
            results, is_over = self.get_goal_results([candidate])
            best = max([best, *results], key=_rank)
            if is_over or _rank(best)[0]:
                raise _SearchEndedError
            return -float(results[0].score)

        # Without gradients at the end: the energy is a step function.
        with suppress(_SearchEndedError):
            differential_evolution(
                energy,
                bounds,
                maxiter=self.maxiter,
                popsize=self.popsize,
                polish=False,
                seed=np.random.randint(2**31),
            )
        return best


def _rank(result: Any) -> tuple[bool, float]:
    """Successes come before all else, then what makes the text's own class less likely."""
    return result.goal_status == GoalFunctionResultStatus.SUCCEEDED, float(result.score)


class CheckList:
    """CheckList's invariance tests (Ribeiro et al., ACL 2020): contractions, their expansion, and numbers.

    TextAttack's recipe also changes names and locations, which flair's tagger finds; here they stay.
    """

    @staticmethod
    def build(victim: Victim) -> Attack:
        """Build the attack."""
        transformation = CompositeTransformation([WordSwapExtend(), WordSwapContract(), ChangeNumber()])
        # Otherwise contractions and expansions would undo each other for ever.
        constraints = [RepeatModification()]
        return Attack(UntargetedClassification(victim), constraints, transformation, GreedySearch())


class ChangeNumber(WordSwapChangeNumber):
    """TextAttack's change of numbers, which leaves alone those that it cannot read, such as ² or 10^30."""

    def _get_new_number(self, word: str) -> Sequence[Any]:
        try:
            numbers: Sequence[Any] = super()._get_new_number(word)
        except (ValueError, OverflowError):
            return []
        return numbers
