"""Options of attacks, perturbations, and of the robust dense start."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from compressor.options.attacks import ATTACK_REGISTRY, AttackName, attack_named
from compressor.options.registry import PluginOptions
from compressor.options.section import Section
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
    """Where synonyms come from."""

    wordnet: str | None = Field(
        None,
        description="pwws, synonyms: directory of WordNet's database files, such as /usr/share/wordnet of "
        "Debian's wordnet-base; a thesaurus and MiniLM's word vectors from their packages if not given.",
    )


class PerturbConfig(SynonymsConfig):
    """Perturbations that are drawn once and replayed on any model."""

    perturbations: list[PerturbationName] = Field(
        ["typos", "synonyms", "casing"], min_length=1, description="Kinds: typos, synonyms, casing."
    )
    perturbed_examples: int = Field(
        500, ge=1, description="Test texts that are perturbed, drawn with the seed."
    )
    perturbed_share: float = Field(
        0.15, gt=0, le=1, description="Share of a text's words with a typo or a synonym, one word at least."
    )


class ResourcesConfig(SynonymsConfig):
    """What attacks need besides a victim; what is not given comes from packages."""

    word_vectors: str | None = Field(
        None,
        description="textfooler, textbugger: word vectors, an .npz file with arrays words and vectors, "
        "or text with a word and its numbers on each line; computed with the sentence encoder if not given.",
    )
    sentence_encoder: str | None = Field(
        None,
        description="textfooler, textbugger, bertattack: directory of a BERT sentence encoder; MiniLM from "
        "its package if not given.",
    )
    masked_language_model: str = Field(
        "bert-base-uncased", description="bertattack: directory or hub id of a masked language model."
    )


class AttackConfig(ResourcesConfig):
    """Adversarial attack with TextAttack."""

    attack: AttackName = Field(
        "deepwordbug",
        description="Recipe of TextAttack. inputreduction removes words as long as the class stays, and "
        "succeeds if one word is left; all others look for another class.",
    )
    attack_options: PluginOptions = Field(
        {},
        validate_default=True,
        description="Options of an attack that a package registers, by their names; on the command line "
        "NAME=VALUE, repeated.",
    )
    attack_examples: int = Field(200, ge=1, description="Texts that are attacked, drawn with the seed.")
    max_words_changed: float | None = Field(
        None, gt=0, le=1, description="Largest share of a text's words that may change, one word at least."
    )
    word_budgets: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.05, 0.1, 0.15, 0.2],
        description="Shares of words for which accuracy under attack is read off the same run, for "
        "textfooler, bertattack and pwws: it is exactly that of an attack with --max-words-changed.",
    )
    query_budget: int | None = Field(
        None, ge=1, description="Most texts of an example that the attack may have scored."
    )

    @field_validator("attack_options")
    @classmethod
    def _of_the_attack(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        # Of an unknown attack no options are known.
        known = info.data.get("attack")
        return given if known is None else ATTACK_REGISTRY.checked_options(known, given)

    @property
    def exact_word_budgets(self) -> list[float]:
        """Shares of words for which a run tells exactly what an attack bounded so would come to."""
        if not attack_named(self.attack).replaces_in_order:
            return []
        limit = self.max_words_changed or 1.0
        return [share for share in self.word_budgets if share <= limit]

    @property
    def longest_word_budget(self) -> float | None:
        """End of the word budgets that the mean accuracy under attack is over; None if it is not told."""
        if not attack_named(self.attack).replaces_in_order:
            return None
        return min(LONGEST_WORD_BUDGET, self.max_words_changed or 1.0)


class SoupConfig(PerturbationConfig, SubstitutionConfig):
    """A robust dense start: fine-tuning runs of a grid, averaged greedily by accuracy under attack."""

    runs: int = Field(
        6,
        ge=2,
        le=1000,
        description="Fine-tuning runs. Each value of each list below is taken by as many of them as any "
        "other, in combinations drawn with the seed.",
    )
    learning_rates: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [2e-5, 5e-5, 1e-4], min_length=1, description="Peak learning rates of the grid."
    )
    optimizers: list[OptimizerName] = Field(
        ["adamw", "adam"], min_length=1, description="Optimizers of the grid: adamw, adam, sgd."
    )
    epoch_counts: list[Annotated[int, Field(ge=1, le=100)]] = Field(
        [2, 3], min_length=1, description="Passes over the training data, of the grid."
    )
    weight_decays: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        [0.01, 0.001], min_length=1, description="Weight decays of the grid."
    )
    adversarial_step_counts: list[Annotated[int, Field(ge=0, le=100)]] = Field(
        [0, 3], min_length=1, description="Steps of adversarial training (FreeLB) of the grid; 0 has none."
    )
    substituted_shares: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        [0.0, 0.3],
        min_length=1,
        description="Shares of the words that are replaced by close ones at each step, of the grid; 0 trains "
        "on the texts as they are.",
    )
    holdout_examples: int = Field(
        1000,
        ge=1,
        description="Texts of the training data that are not trained on: runs are compared by their accuracy "
        "on all of them, and by an attack on the first --attack-examples.",
    )
    accuracy_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Runs and averages that lose more than this of the most accurate run's accuracy are left "
        "out: a constant answer is robust.",
    )
    chosen_by: RobustnessFigure = Field(
        "accuracy_under_attack",
        description="Figure of the attack that runs and averages are compared by. The accuracy under attack "
        "is the paper's; its mean over word budgets tells runs apart on far fewer texts, for textfooler, "
        "bertattack and pwws.",
    )
    batch_size: BatchSize = 32
    warmup_share: WarmupShare = 0.1
    attack: AttackConfig = AttackConfig()
