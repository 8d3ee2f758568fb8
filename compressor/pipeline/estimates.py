"""How long the stages of a run take here: from a short measurement of the real model on real texts.

What a stage computes is counted in passes of the model and in double precision operations, and each is
timed for about a second. Expect the truth within a factor of two or so; other work on the machine, early
stopping and texts of unusual length move it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from compressor.config.recipe import Recipe
from compressor.data.texts import Role, TextData, load_text_data
from compressor.models.batching import encode, pad
from compressor.models.classifier import encoder_linears, load_for_finetuning
from compressor.options import AttackConfig, AttackName, SoupConfig, SubstitutionConfig, TaskName
from compressor.pipeline.keys import attack_stage, known_labels, labels_of_run
from compressor.pruning.adaptive.distillation import BATCH_SIZE as DISTILLATION_BATCH_SIZE
from compressor.pruning.interface import algorithm_named
from compressor.pruning.patterns import Structured, parse_pattern
from compressor.system.environment import prepare

SAMPLE = 16
MEASURED_SECONDS = 1.0
PRODUCT_SIZE = 512
# Double precision operations of the solvers, from their times against those of matrix products on one
# core: fast and greedy for each entry of out x in x in, the former with more for each iteration until it
# settles; exact for each zero of out x in x in x in; structured for each entry of in x in x in.
FAST_OPERATIONS, FAST_ITERATION_OPERATIONS, FAST_SETTLES = 200, 4.5, 30
GREEDY_OPERATIONS, EXACT_OPERATIONS, STRUCTURED_OPERATIONS = 290, 45, 150
# Passes over the calibration texts, dense and sparse together, of an algorithm that walks the layers.
WALK_PASSES = 6
# Queries an example: measured on critic quotes with MiniLM, 64 tokens; None where nothing was.
QUERIES: dict[AttackName, int | None] = {
    "deepwordbug": 23,
    "textfooler": 83,
    "textbugger": None,
    "bertattack": None,
    "pwws": None,
    "pruthi": None,
    "inputreduction": None,
}
UNMEASURED_QUERIES = 100
# Of a pass forth and back, all but the parameters' gradients.
GRADIENT_SEARCH = 1 / 2
# Seconds that do not depend on the size of the job: imports, TextAttack's, the trace of the graph.
TEXTATTACK_SECONDS, EXPORT_SECONDS, VALIDATE_SECONDS = 15.0, 15.0, 5.0


@dataclass(frozen=True)
class Group:
    """Encoder matrices that read the same input and are solved together, stacked to `(rows, columns)`."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Pace:
    """What was measured here.

    Attributes:
        forward: seconds of a forward pass, a text.
        training: seconds of a forward and a backward pass, a text.
        operations: double precision operations a second, in matrix products.
        tokens: mean tokens of a text.
        groups: of all encoder layers.
    """

    forward: float
    training: float
    operations: float
    tokens: float
    groups: list[Group]


@dataclass(frozen=True)
class Sizes:
    """Texts of each data set; 0 where there is none."""

    train: int
    calibration: int
    test: int


@dataclass(frozen=True)
class Estimate:
    """How long a stage takes, and what was assumed about it besides its options."""

    seconds: float
    assumes: str = ""


def measure(recipe: Recipe, task: TaskName) -> tuple[Pace, Sizes]:
    """Load the recipe's model and data and time the model on this machine.

    Args:
        task: the run's, see `task_of_run`.

    Raises:
        UserError: bad model or data.
    """
    device = prepare(recipe.run)
    names = labels_of_run(recipe, task)

    def load(source: str, role: Role, needs_labels: bool = True) -> TextData:
        own = known_labels(task) if role == "train" else names
        return load_text_data(source, recipe.data, role, label_names=own, needs_labels=needs_labels)

    test = load(recipe.data.test, "test")
    calibration = load(
        recipe.data.calibration, "calibration", algorithm_named(recipe.prune.algorithm).needs_labels
    )
    train = None if recipe.data.train is None else load(recipe.data.train, "train")
    sizes = Sizes(0 if train is None else len(train), len(calibration), len(test))
    return _pace(recipe, test, device), sizes


def _pace(recipe: Recipe, test: TextData, device: torch.device) -> Pace:
    classifier = load_for_finetuning(
        recipe.model,
        test.label_names,
        recipe.run.seed,
        device,
        lengths={"max_length": recipe.data.max_length},
        has_pairs=test.pairs is not None,
    )
    encoded = encode(classifier.tokenizer, test.sample(SAMPLE, recipe.run.seed), recipe.data.max_length)
    batch = pad(encoded, int(classifier.tokenizer.pad_token_id), device)
    model = classifier.model

    def forward() -> None:
        with torch.inference_mode():
            model(**batch).logits.cpu()

    def train() -> None:
        model(**batch).logits.sum().backward()
        model.zero_grad(set_to_none=True)

    matrix = torch.ones(PRODUCT_SIZE, PRODUCT_SIZE, dtype=torch.float64, device=device)
    linears = encoder_linears(model)
    groups = [
        Group(sum(linears[name].out_features for name in names), linears[names[0]].in_features)
        for _, names in classifier.layout.groups(model)
    ]
    return Pace(
        forward=_seconds_of(forward) / len(encoded),
        training=_seconds_of(train) / len(encoded),
        operations=2 * PRODUCT_SIZE**3 / _seconds_of(lambda: float((matrix @ matrix)[0, 0])),
        tokens=sum(len(ids) for ids, _ in encoded) / len(encoded),
        groups=groups,
    )


def _seconds_of(work: Callable[[], object]) -> float:
    """Median seconds of `work`, after it was done once, over about `MEASURED_SECONDS`."""
    work()
    times: list[float] = []
    while not times or sum(times) < MEASURED_SECONDS:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def estimate(recipe: Recipe, stage: str, pace: Pace, sizes: Sizes, *, first_attack: bool) -> Estimate:
    """How long one stage of the recipe takes, from its beginning and in one process.

    Args:
        first_attack: whether TextAttack is not loaded yet.
    """
    if stage == "dense":
        return _dense(recipe, pace, sizes)
    if stage == "prune":
        return Estimate(_pruning_seconds(recipe, pace, sizes))
    if stage == "export":
        parity = min(recipe.export.parity_examples, sizes.test)
        return Estimate(EXPORT_SECONDS + 2 * parity * pace.forward)
    if stage.startswith(attack_stage("")):
        return _attack(recipe.attack, pace, sizes.test, TEXTATTACK_SECONDS if first_attack else 0.0)
    options = recipe.validate_
    rounds = 2 * (options.latency_rounds + 3)
    latency = sum(
        min(3 * rounds * size * length / pace.tokens * pace.forward, options.latency_seconds)
        for size, length in options.shapes
    )
    return Estimate(VALIDATE_SECONDS + 3 * sizes.test * pace.forward + latency)


def _dense(recipe: Recipe, pace: Pace, sizes: Sizes) -> Estimate:
    config = recipe.finetune
    if config is not None:
        text = max(1, config.adversarial_steps) * pace.training
        text += _search_seconds(config, config.substituted_share, pace)
        return Estimate(config.epochs * sizes.train * text)
    soup = recipe.soup or SoupConfig()
    held = min(soup.holdout_examples, sizes.train)
    text = _mean([max(1, steps) for steps in soup.adversarial_step_counts]) * pace.training
    text += _mean([_search_seconds(soup, share, pace) for share in soup.substituted_shares])
    training = soup.runs * _mean(soup.epoch_counts) * (sizes.train - held) * text
    attacked = _attack(soup.attack, pace, held)
    # Each run alone, and each average that is tried.
    evaluations = 2 * soup.runs - 1
    seconds = TEXTATTACK_SECONDS + training + evaluations * (attacked.seconds + held * pace.forward)
    return Estimate(seconds, attacked.assumes)


def _search_seconds(config: SubstitutionConfig, share: float, pace: Pace) -> float:
    """Seconds that a training step searches, for each of its texts, for the words to replace."""
    if not share:
        return 0.0
    if config.substitution_choice == "gradient":
        return GRADIENT_SEARCH * pace.training
    return config.substitution_draws * pace.forward if config.substitution_draws > 1 else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _attack(config: AttackConfig, pace: Pace, texts: int, loading: float = 0.0) -> Estimate:
    measured = QUERIES.get(config.attack)
    queries = UNMEASURED_QUERIES if measured is None else measured
    if config.query_budget is not None:
        queries = min(queries, config.query_budget)
    seconds = min(config.attack_examples, texts) * queries * pace.forward
    return Estimate(loading + seconds, f"{queries} queries an example")


def _pruning_seconds(recipe: Recipe, pace: Pace, sizes: Sizes) -> float:
    config = recipe.prune
    if config.algorithm == "magnitude":
        return 0.0
    if config.algorithm == "randomized":
        options = config.randomized
        steps = len(options.step_sparsities or []) or options.steps
        updates = steps * (options.candidates * options.early_steps + options.recovery_steps)
        passes = updates * max(1, options.adversarial_steps) * options.batch_size * options.accumulation_steps
        held = min(options.holdout_examples, sizes.calibration)
        scored = held
        if options.attack_weight:
            scored += min(options.attacked_examples, held) * (QUERIES["deepwordbug"] or UNMEASURED_QUERIES)
        return passes * pace.training + steps * options.candidates * scored * pace.forward
    texts: float = min(config.calibration_examples, sizes.calibration)
    if config.algorithm == "adaptive":
        # Made texts fill up what is missing.
        texts = max(texts, config.adaptive.calibration_tokens / pace.tokens)
    walked = WALK_PASSES * texts * pace.forward
    if config.algorithm == "wanda":
        return walked
    # Two matrices of second moments for each group: of the inputs, and of dense against sparse ones.
    moments = sum(4 * texts * pace.tokens * group.columns**2 for group in pace.groups)
    solving = sum(_solver_operations(recipe, group) for group in pace.groups)
    solved = walked + (moments + solving) / pace.operations
    if config.algorithm != "adaptive":
        return solved
    tuned = config.adaptive.reconstruction_passes * texts * pace.training
    # The dense model answers each text as well.
    text = pace.training + pace.forward
    if config.adaptive.distillation_substituted_share:
        text += GRADIENT_SEARCH * pace.training + pace.training
    distilled = config.adaptive.distillation_steps * DISTILLATION_BATCH_SIZE * text
    return solved + tuned + distilled


def _solver_operations(recipe: Recipe, group: Group) -> float:
    config = recipe.prune
    pattern = parse_pattern(config.pattern, config.sparsity, config.scope)
    square = group.rows * group.columns**2
    if isinstance(pattern, Structured):
        return STRUCTURED_OPERATIONS * group.columns**3
    if config.algorithm == "sparsegpt" or config.adaptive.solver == "greedy":
        return GREEDY_OPERATIONS * square
    if config.adaptive.solver == "exact":
        return EXACT_OPERATIONS * pattern.sparsity * square * group.columns
    iterations = min(config.adaptive.iterations, FAST_SETTLES)
    return (FAST_OPERATIONS + FAST_ITERATION_OPERATIONS * iterations) * square
