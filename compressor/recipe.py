"""Every option of every stage: its name, default, bounds and meaning, in one place.

The recipe (YAML) is a `Recipe`; the command line's flags are made from the same models by
`compressor.flags`. Light on imports, since `compress --help` loads it.
"""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from pydantic.fields import FieldInfo

from compressor.errors import UserError

AlgorithmName = Literal["adaptive", "randomized", "magnitude", "wanda", "sparsegpt"]
AttackName = Literal[
    "deepwordbug", "textfooler", "textbugger", "bertattack", "pwws", "pruthi", "inputreduction"
]
DeviceName = Literal["auto", "cpu", "cuda"]
Scope = Literal["row", "layer"]
PerturbationName = Literal["typos", "synonyms", "casing"]
SamplingSchedule = Literal["constant", "falling"]
OptimizerName = Literal["adamw", "adam", "sgd"]
CandidateSchedule = Literal["constant", "rising"]
MetricName = Literal["accuracy", "f1", "matthews"]
CandidateScore = Literal["loss", MetricName]
Precision = Literal["fp32", "bf16"]
BatchSize = Annotated[
    int,
    Field(ge=1, le=4096, description="Texts of a training step, or of each of its accumulated parts."),
]
WarmupShare = Annotated[
    float, Field(ge=0, le=1, description="Share of the steps in which the learning rate rises.")
]


class Section(BaseModel):
    """Part of a recipe. Unknown keys are errors; values do not change once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunConfig(Section):
    """Where and how a command runs."""

    device: DeviceName = Field("auto", description="Where models run; auto takes CUDA if it is there.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything that is drawn.")
    threads: int = Field(
        0, ge=0, le=1024, description="Processor threads of PyTorch and ONNX Runtime; 0 takes all cores."
    )


class ColumnsConfig(Section):
    """How texts are read from a data set."""

    text_column: str | None = Field(None, description="Column of the text; found by convention if not given.")
    text_pair_column: str | None = Field(
        None, description="Column of the second text of a pair; found by convention if not given."
    )
    label_column: str | None = Field(
        None, description="Column of the label, a number or a name; found by convention if not given."
    )
    max_length: int = Field(128, ge=4, le=512, description="Longest input in tokens; longer ones are cut.")


class DataConfig(ColumnsConfig):
    """The data of a whole run."""

    train: str | None = Field(None, description="Texts to fine-tune on: file or hub id.")
    calibration: str = Field(description="Texts to prune with: file or hub id; never the test data.")
    test: str = Field(description="Labelled texts that nothing was trained or chosen on: file or hub id.")


class PerturbationConfig(Section):
    """How adversarial training (FreeLB) moves the word embeddings; norms are of a whole text's."""

    adversarial_step_size: float = Field(
        0.3, gt=0, le=100, description="Norm of each ascent step of the perturbation."
    )
    adversarial_initial_norm: float = Field(
        0.05, ge=0, le=100, description="Norm that bounds the random perturbation of the start."
    )
    adversarial_bound: float | None = Field(
        None, gt=0, le=1000, description="Largest norm of the perturbation; none if not given."
    )
    adversarial_start: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the training steps that come before without perturbation: perturbed from its "
        "first step on, a small model may never learn more than a constant answer.",
    )


class AdversarialConfig(PerturbationConfig):
    """Adversarial training, or none."""

    adversarial_steps: int = Field(
        0,
        ge=0,
        le=100,
        description="Forward and backward passes of a training step on perturbed word embeddings (FreeLB); "
        "0 trains without perturbation.",
    )


class TrainingConfig(AdversarialConfig):
    """What fine-tuning and recovery have in common."""

    batch_size: BatchSize = 32
    accumulation_steps: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Batches whose gradients make one training step, where memory does not hold a large one.",
    )
    precision: Precision = Field(
        "fp32", description="Arithmetic of the model's passes; weights and optimizer stay in fp32."
    )


class FinetuneConfig(TrainingConfig):
    """Fine-tuning of a dense classifier."""

    epochs: int = Field(2, ge=1, le=100, description="Passes over the training data.")
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Peak learning rate.")
    optimizer: OptimizerName = Field(
        "adamw",
        description="adamw decouples the weight decay, adam adds it to the gradient; sgd has momentum.",
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Weight decay.")
    warmup_share: WarmupShare = 0.1


class AdaptiveConfig(Section):
    """Adaptive knowledge-retention pruning (algorithm 1)."""

    solver: Literal["fast", "exact", "greedy"] = Field(
        "fast",
        description="fast: ADMM mask search, swaps and exact least squares; exact: the paper's elimination, "
        "cubic in the layer's width and very slow past small models; greedy: one pass, the least exact.",
    )
    allocation: Literal["uniform", "error"] = Field(
        "uniform",
        description="uniform: the same sparsity everywhere, as in the paper; error: more zeros where the "
        "measured error is cheapest, the same number in all (unstructured only).",
    )
    adaptive_hessian: bool = Field(
        True, description="Second moments of the drifted inputs; if not, of the dense model's."
    )
    resolve_weight: bool = Field(
        True, description="Re-solve each dense weight for the drifted inputs before it is pruned."
    )
    damping: float = Field(
        0.01,
        gt=0,
        le=10,
        description="Ridge towards the dense weight, as a share of the Hessian's mean diagonal.",
    )
    reconstruction_passes: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Passes over the calibration texts in which each pruned encoder layer is tuned, "
        "zeros fixed and without labels, to the dense layer's output.",
    )
    reconstruction_rate: float = Field(3e-4, gt=0, le=1, description="Peak learning rate of these passes.")
    resolve_heads: bool = Field(
        True, description="Re-solve pooler and classifier for the inputs that the pruned encoder feeds them."
    )
    iterations: int = Field(60, ge=1, le=10_000, description="Most ADMM iterations of the fast solver.")


class RandomizedConfig(TrainingConfig):
    """Randomized mask generation and selection (algorithm 2)."""

    steps: int = Field(3, ge=1, le=1000, description="Pruning steps over which the sparsity rises.")
    schedule: Literal["cubic", "geometric"] = Field(
        "cubic", description="How the sparsity rises: cubic, or the same share of live weights each step."
    )
    step_sparsities: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        None,
        min_length=1,
        description="Sparsity of each step, rising to that of the run, in place of --steps and --schedule.",
    )
    candidates: int = Field(3, ge=1, le=1000, description="Masks drawn in a step; the first is by magnitude.")
    candidate_schedule: CandidateSchedule = Field(
        "constant",
        description="The number of candidates over the steps: the same, or rising to it by equal parts, "
        "since a choice matters most where few weights are left.",
    )
    score: CandidateScore = Field(
        "loss",
        description="What candidates are compared by on held-out texts: the training loss, or a metric; f1 "
        "is of the second class, or the mean over classes if there are more.",
    )
    shift_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="What a candidate's score loses for each unit of divergence (in nats) between its "
        "answers to held-out texts and to the same texts with typos and synonyms.",
    )
    sampling_ratio: float = Field(
        0.05, ge=0, le=1, description="Share of the kept weights that is drawn and not ranked."
    )
    sampling_schedule: SamplingSchedule = Field(
        "constant",
        description="The sampling ratio over the steps: the same, or falling to a last small part.",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Weights are drawn with probability proportional to |w|^(1/temperature).",
    )
    mask_scope: Literal["layer", "global"] = Field(
        "layer", description="Where unstructured zeros are counted: in each matrix, or over all of them."
    )
    revive: bool = Field(
        False, description="Weights that a step zeroed may come back in a later one, with the dense value."
    )
    halving: bool = Field(
        False,
        description="Score candidates in rounds, each of which trains them on and drops the worse half; "
        "otherwise once.",
    )
    rectify: Literal["none", "adaptive"] = Field(
        "none",
        description="adaptive: before the recovery, re-solve what the mask keeps for the dense model's "
        "outputs, layer by layer as in algorithm 1.",
    )
    early_steps: int = Field(
        6, ge=0, le=100_000, description="Training steps of a candidate before it is scored."
    )
    early_learning_rate: float = Field(1e-4, gt=0, le=1, description="Learning rate of these steps.")
    recovery_steps: int = Field(
        60, ge=0, le=1_000_000, description="Training steps of the chosen mask in each pruning step."
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Peak learning rate of the recovery.")
    patience: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Evaluations in a row without a lower held-out loss after which a recovery ends; it then "
        "takes the best weights. 0 trains to the end and takes the last.",
    )
    evaluation_interval: int = Field(
        20, ge=1, le=1_000_000, description="Training steps between evaluations, if --patience is given."
    )
    holdout_examples: int = Field(
        256, ge=1, description="Calibration texts kept out of training, on which candidates are scored."
    )
    distillation_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the dense model's logits in the loss; the labels have the rest.",
    )
    distillation_temperature: float = Field(
        2.0, gt=0, le=100, description="Temperature of the softmax of both models in the distillation."
    )
    hidden_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight of the distance to the dense model's hidden states, which is added to the loss.",
    )


class PruneConfig(Section):
    """What is zeroed, and how."""

    algorithm: AlgorithmName = Field(
        "adaptive", description="adaptive and randomized are the published methods, the others baselines."
    )
    pattern: str = Field(
        "unstructured",
        description="unstructured; N:M (N of M stay) such as 2:4; or structured (heads and neurons go).",
    )
    sparsity: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of zeros in the encoder, or of heads and neurons that go; 0.5 if not given, "
        "N:M implies its own.",
    )
    scope: Scope | None = Field(
        None,
        description="Where unstructured weights are ranked: each row (as in the paper), or the layer (query, "
        "key and value as one in adaptive); the algorithm's own if not given.",
    )
    calibration_examples: int = Field(
        512,
        ge=1,
        description="Calibration texts that are used, drawn with the seed; randomized trains on all.",
    )
    adaptive: AdaptiveConfig = AdaptiveConfig()
    randomized: RandomizedConfig = RandomizedConfig()


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
        description="textfooler, textbugger: word vectors, an .npz file with arrays words and vectors; "
        "computed with the sentence encoder if not given.",
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


class SoupConfig(PerturbationConfig):
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
    batch_size: BatchSize = 32
    warmup_share: WarmupShare = 0.1
    attack: AttackConfig = AttackConfig()


class ExportConfig(Section):
    """Export to ONNX."""

    parity_examples: int = Field(256, ge=1, description="Real texts on which parity with PyTorch is proven.")
    parity_tolerance: float = Field(1e-4, gt=0, le=1, description="Largest difference of a logit.")


class KnowledgeConfig(Section):
    """Knowledge kept of a dense model."""

    against: str | None = Field(
        None, description="Dense classifier to compare with on texts: directory or hub id."
    )
    data: str | None = Field(
        None,
        description="Clean texts, labels not needed: file or hub id; the originals of --attacked if not "
        "given.",
    )
    attacked: Path | None = Field(
        None,
        description="Directory from `compress attack`, whose successful attacks are the attacked texts.",
    )
    examples: int | None = Field(
        None,
        ge=1,
        description="Most texts of a kind that are compared, drawn with the seed; 256 if not given.",
    )
    sentence: str | None = Field(None, description="Text of the attention maps; the first one if not given.")
    attacked_sentence: str | None = Field(None, description="What an attack made of --sentence.")
    attention_layer: int | None = Field(
        None, description="Encoder layer of the attention maps, from 1; the last if not given."
    )


class ValidateConfig(Section):
    """Measurement and gates."""

    batch_sizes: list[PositiveInt] = Field(
        [1, 8], min_length=1, description="Batch sizes of the latency table."
    )
    sequence_lengths: list[PositiveInt] = Field(
        [32, 128], min_length=1, description="Sequence lengths of the latency table, in tokens."
    )
    latency_rounds: int = Field(
        20, ge=3, le=100_000, description="Timed runs of each variant at each batch size and length."
    )
    gates: list[str] = Field(
        [
            "dense_over_majority >= 0.05",
            "accuracy_drop <= 0.01",
            "accuracy_under_attack_drop <= 0.05",
        ],
        description="Bounds on the result, such as 'accuracy_drop <= 0.01'; a broken one gives exit code 1.",
    )


class Recipe(Section):
    """A whole run: dense model and data in, pruned and proven artifact out."""

    model: str = Field(
        description="Directory or hub id: a fine-tuned classifier, or an encoder to fine-tune."
    )
    data: DataConfig
    run: RunConfig = RunConfig()
    finetune: FinetuneConfig | None = None
    soup: SoupConfig | None = None
    prune: PruneConfig = PruneConfig()
    attack: AttackConfig = AttackConfig()
    export: ExportConfig = ExportConfig()
    validate_: ValidateConfig = Field(default=ValidateConfig(), alias="validate")


def load_recipe(path: Path, run: dict[str, Any] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        run: values in place of those of the recipe's run section.

    Raises:
        UserError: no such file, no YAML, an unknown key (the nearest known one is suggested) or a
            bad value; the line names file, line, key and value.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a recipe: {error}") from error
    try:
        value = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as error:
        # PyYAML lets what its constructors raise through, for such as `2024-99-99` or `!!bool x`.
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: a recipe is a mapping with the keys {', '.join(_keys(Recipe))}")
    if run and isinstance(value.get("run", {}), dict):
        value["run"] = value.get("run", {}) | run
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        location = problem["loc"]
        raise UserError(f"{path}:{_line(node, location)}: {describe(problem, Recipe)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default written out."""
    import yaml

    return str(yaml.safe_dump(recipe.model_dump(by_alias=True), sort_keys=False, allow_unicode=True))


def describe(problem: Any, model: type[BaseModel]) -> str:
    """One line on one of pydantic's errors: key, what is wrong, the value, the nearest known key."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(part if part.isprintable() and part.strip() else repr(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _keys(_section_at(model, location[:-1]))
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        way_out = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {way_out}"
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    if problem["type"] == "missing":
        return f"{key}: missing; this key is required"
    return f"{key}: {message}, not {problem['input']!r}"


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section, its own in front of those that it shares with others."""
    own = inspect.get_annotations(model)
    return dict(sorted(model.model_fields.items(), key=lambda entry: entry[0] not in own))


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in fields_of(model).items()]


def _section_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for part in path:
        for name, field in model.model_fields.items():
            if (field.alias or name) == part:
                options = [field.annotation, *get_args(field.annotation)]
                model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return model


def _line(node: Any, location: tuple[Any, ...]) -> int:
    """Line, from 1, of the deepest part of `location` that the YAML document has."""
    line = int(node.start_mark.line) + 1
    for part in location:
        children = node.value if isinstance(node.value, list) else []
        pairs = [child for child in children if isinstance(child, tuple)]
        if pairs:
            found = next((pair for pair in pairs if pair[0].value == str(part)), None)
            if found is None:
                break
            line, node = int(found[0].start_mark.line) + 1, found[1]
        elif isinstance(part, int) and part < len(children):
            node = children[part]
            line = int(node.start_mark.line) + 1
        else:
            break
    return line
