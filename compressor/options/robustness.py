"""Options of attacks, perturbations and soups."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from compressor.options.attacks import ATTACK_REGISTRY, AttackNames, attack_named
from compressor.options.normalization import NormalizationConfig
from compressor.options.registry import PluginOptions
from compressor.options.section import Common, Section, said
from compressor.options.training import (
    BatchSize,
    OptimizerName,
    PerturbationConfig,
    SubstitutionConfig,
    WarmupShare,
)

# Beyond it a text is hardly the same.
LONGEST_WORD_BUDGET = 0.3

RobustnessFigure = Literal["accuracy_under_attack", "mean_accuracy_under_attack"]

PerturbationName = Literal["typos", "synonyms", "casing"]


class SynonymsConfig(Section):
    """Source of synonyms."""

    wordnet: str | None = Field(
        None,
        description="pwws, synonyms: directory of WordNet's database files, such as /usr/share/wordnet of "
        "Debian's wordnet-base. By default a thesaurus and MiniLM word vectors from their packages.",
    )


class PerturbConfig(SynonymsConfig):
    """Perturbations, drawn once and scored on any model."""

    perturbations: Annotated[list[PerturbationName], Common()] = Field(
        ["typos", "synonyms", "casing"], min_length=1, description="Perturbations: typos, synonyms, casing."
    )
    perturbed_examples: Annotated[int, Common()] = Field(
        500, ge=1, description="Number of test texts to perturb, drawn with the seed."
    )
    perturbed_share: float = Field(
        0.15,
        gt=0,
        le=1,
        description="Fraction of a text's words with a typo or a synonym; at least one word.",
    )


class ResourcesConfig(SynonymsConfig):
    """Attack resources; by default they come from packages."""

    word_vectors: str | None = Field(
        None,
        description="textfooler, textbugger, a2t: word vectors, as an .npz file with arrays words and "
        "vectors, or as text with a word and its vector on each line. By default computed with the "
        "sentence encoder.",
    )
    sentence_encoder: str | None = Field(
        None,
        description="textfooler, textbugger, bertattack, a2t: directory of a BERT sentence encoder; by "
        "default MiniLM from its package.",
    )
    masked_language_model: str = Field(
        "bert-base-uncased", description="bertattack: directory or hub id of a masked language model."
    )


class AttackConfig(ResourcesConfig):
    """Adversarial attack with TextAttack."""

    attack: Annotated[AttackNames, Common()] = Field(
        "deepwordbug",
        description="TextAttack recipe, or several with commas between them: each attacks the same texts, "
        "and a text holds under all of them if it holds under each. inputreduction removes words as long as "
        "the predicted class stays the same, and succeeds when one word is left; all others try to change "
        "the predicted class.",
    )
    attack_examples: Annotated[int, Common()] = Field(
        200, ge=1, description="Number of texts to attack, drawn with the seed."
    )
    attack_options: PluginOptions = Field(
        {},
        validate_default=True,
        description="Options of badcharacters (kind, changes, population, generations) or of an attack that "
        "a package registers, by their names; on the command line NAME=VALUE, repeated.",
    )
    max_words_changed: float | None = Field(
        None, gt=0, le=1, description="Maximum fraction of a text's words that may change; at least one word."
    )
    word_budgets: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.05, 0.1, 0.15, 0.2],
        description="Fractions of words at which accuracy under attack is also reported, for deepwordbug, "
        "textfooler, bertattack, pwws and a2t. The values equal those of separate runs with "
        "--max-words-changed.",
    )
    query_budget: int | None = Field(None, ge=1, description="Maximum number of model queries for one text.")

    @field_validator("attack_options")
    @classmethod
    def _of_the_attack(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        # Of an unknown attack no options are known.
        known = info.data.get("attack")
        if known is None:
            return given
        names = known.split(",")
        takers = _with_options(names) if len(names) > 1 else names
        if len(takers) > 1 and given:
            raise said(f"{' and '.join(takers)} have options; run one of these attacks at a time to set them")
        # Each of several takers has its defaults.
        return {} if len(takers) > 1 else ATTACK_REGISTRY.checked_options((takers or names)[0], given)

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks, in order."""
        return self.attack.split(",")

    def each(self) -> list[AttackConfig]:
        """Return the options of each attack as if it ran alone."""
        if len(self.attacks) == 1:
            return [self]
        takers, options = _with_options(self.attacks), self.model_dump()
        return [
            AttackConfig(
                **options | {"attack": name, "attack_options": self.attack_options if name in takers else {}}
            )
            for name in self.attacks
        ]

    @property
    def _in_order(self) -> bool:
        """Whether all attacks tell figures within word budgets."""
        return all(attack_named(name).replaces_in_order for name in self.attacks)

    @property
    def exact_word_budgets(self) -> list[float]:
        """Shares of words for which a run tells exactly what an attack bounded so would come to."""
        if not self._in_order:
            return []
        limit = self.max_words_changed or 1.0
        return [share for share in self.word_budgets if share <= limit]

    @property
    def longest_word_budget(self) -> float | None:
        """End of the word budgets that the mean accuracy under attack is over; None if it is not told."""
        if not self._in_order:
            return None
        return min(LONGEST_WORD_BUDGET, self.max_words_changed or 1.0)

    @property
    def figure(self) -> RobustnessFigure:
        """The figure that tells models apart best: the mean over word budgets, where the attack has it."""
        has_mean = self.longest_word_budget is not None
        return "mean_accuracy_under_attack" if has_mean else "accuracy_under_attack"


def _with_options(names: list[str]) -> list[str]:
    """The attacks that have options of their own."""
    return [name for name in names if ATTACK_REGISTRY.options_of(name).model_fields]


class SoupConfig(PerturbationConfig, SubstitutionConfig, NormalizationConfig):
    """Greedy model soup of fine-tuning runs, selected by accuracy under attack."""

    runs: Annotated[int, Common()] = Field(
        6,
        ge=2,
        le=1000,
        description="Number of fine-tuning runs. Each value of a list below is used by equally many runs, "
        "in combinations drawn with the seed.",
    )
    learning_rates: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [2e-5, 5e-5, 1e-4], min_length=1, description="Peak learning rates of the grid."
    )
    optimizers: list[OptimizerName] = Field(
        ["adamw", "adam"], min_length=1, description="Optimizers of the grid: adamw, adam, sgd."
    )
    epoch_counts: list[Annotated[int, Field(ge=1, le=100)]] = Field(
        [2, 3], min_length=1, description="Numbers of epochs of the grid."
    )
    weight_decays: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        [0.01, 0.001], min_length=1, description="Weight decays of the grid."
    )
    adversarial_step_counts: list[Annotated[int, Field(ge=0, le=100)]] = Field(
        [0, 3],
        min_length=1,
        description="Numbers of adversarial training steps (FreeLB) of the grid; 0 trains without.",
    )
    substituted_shares: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        [0.0, 0.3],
        min_length=1,
        description="Fractions of substituted words of the grid; 0 trains on the original texts.",
    )
    holdout_examples: int = Field(
        1000,
        ge=1,
        description="Number of training texts to hold out. Runs are compared by their accuracy on all of "
        "them, and by an attack on the first --attack-examples.",
    )
    accuracy_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Maximum accuracy loss, relative to the most accurate run, of a run or an average. It "
        "excludes models that are robust because they always predict the same class.",
    )
    chosen_by: Annotated[RobustnessFigure, Common()] = Field(
        "accuracy_under_attack",
        description="Metric by which runs and averages are compared. accuracy_under_attack is the paper's. "
        "Its mean over word budgets needs far fewer texts; for deepwordbug, textfooler, bertattack, pwws and "
        "a2t.",
    )
    batch_size: BatchSize = 32
    warmup_share: WarmupShare = 0.1
    attack: AttackConfig = AttackConfig()
