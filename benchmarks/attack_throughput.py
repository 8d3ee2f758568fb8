"""Queries a second and examples a minute of attacks, against TextAttack's own wrapper and Attacker.

    python -m benchmarks.attack_throughput DENSE TEST [--word-vectors FILE] [--quick] [--output FILE]

Both attack the same examples with the same recipe, constraints, stand-in resources, random states and
threads, one after the other in one process. TextAttack's side: HuggingFaceModelWrapper, which pads to
the model's longest input, its Attacker, and a sentence encoder that encodes whatever it is given.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from benchmarks.experiment import Dense, Test
from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.attacks.attacker import random_state
from compressor.attacks.recipes import build_attack
from compressor.attacks.resources import import_textattack
from compressor.attacks.runner import attack_victim
from compressor.attacks.victims import Victim
from compressor.data.texts import TextData, load_text_data
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.models.classifier import Classifier, load_classifier
from compressor.models.predictors import TorchPredictor
from compressor.options import AttackConfig, AttackName, ColumnsConfig, RunConfig
from compressor.system.console import terminal_progress
from compressor.system.environment import describe_environment, prepare

MAX_LENGTH = 64
SEED = 0
ATTACKS: tuple[AttackName, ...] = ("deepwordbug", "textfooler")
EXAMPLES, QUICK_EXAMPLES = 50, 10
# Outcome and queries of each example.
Found: TypeAlias = list[tuple[str, int]]
OUTCOMES = {"SkippedAttackResult": "skipped", "SuccessfulAttackResult": "succeeded"}


def ours(classifier: Classifier, data: TextData, config: AttackConfig) -> tuple[float, Found]:
    """Seconds, and what was found."""
    victim = Victim(TorchPredictor(classifier), MAX_LENGTH)
    start = time.perf_counter()
    examples, _ = attack_victim(victim, data, config, SEED, terminal_progress())
    return time.perf_counter() - start, [(e.outcome, e.queries) for e in examples]


def stock(
    classifier: Classifier, data: TextData, config: AttackConfig
) -> tuple[float, list[tuple[str, int]]]:
    """As `ours`, by TextAttack's wrapper and Attacker."""
    textattack = import_textattack()
    wrapper = textattack.models.wrappers.HuggingFaceModelWrapper(classifier.model, classifier.tokenizer)
    # What our recipes ask of a victim; far more than any of these texts has, so it restricts nothing.
    wrapper.max_length, wrapper.device = 10_000, classifier.device
    encode = SentenceEncoder.encode
    SentenceEncoder.encode = SentenceEncoder.encode_each  # type: ignore[method-assign]
    start = time.perf_counter()
    try:
        attack, _ = build_attack(config, wrapper, terminal_progress())
        # Where TextAttack's parts compute if it is left alone.
        textattack.shared.utils.device = classifier.device
        _with_random_states(attack)
        dataset = textattack.datasets.Dataset(list(zip(data.texts, data.class_labels, strict=True)))
        arguments = textattack.AttackArgs(
            num_examples=len(data), disable_stdout=True, silent=True, random_seed=SEED
        )
        results = textattack.Attacker(attack, dataset, arguments).attack_dataset()
    finally:
        SentenceEncoder.encode = encode  # type: ignore[method-assign]
    found = [(OUTCOMES.get(type(result).__name__, "failed"), int(result.num_queries)) for result in results]
    return time.perf_counter() - start, found


def _with_random_states(attack: Any) -> None:
    """Give each example the random state that it has on our side, so that the same typos are drawn."""
    own, places = attack.attack, iter(range(10**9))

    def seeded(example: Any, label: int) -> Any:
        with random_state(SEED, next(places)):
            return own(example, label)

    attack.attack = seeded


def measure(classifier: Classifier, data: TextData, config: AttackConfig) -> dict[str, Any]:
    """Both sides on the same examples."""
    # What is cached on disk is made, and modules are imported, before any clock runs.
    ours(classifier, data.select([0]), config)
    row: dict[str, Any] = {"attack": config.attack, "examples": len(data)}
    outcomes = {}
    for name, side in (("TextAttack", stock), ("compress", ours)):
        seconds, found = side(classifier, data, config)
        outcomes[name] = found
        queries = sum(count for outcome, count in found)
        row[name] = {"seconds": seconds, "queries": queries, "held": sum(o == "failed" for o, _ in found)}
    pairs = list(zip(outcomes["TextAttack"], outcomes["compress"], strict=True))
    row["different_outcomes"] = [i for i, (a, b) in enumerate(pairs) if a[0] != b[0]]
    row["different_queries"] = [i for i, (a, b) in enumerate(pairs) if a[1] != b[1]]
    row["times_faster"] = row["TextAttack"]["seconds"] / row["compress"]["seconds"]
    return row


def table(result: dict[str, Any]) -> str:
    """One line an attack and side."""
    header = ["attack", "by", "queries a second", "examples a minute", "times faster", "other outcomes"]
    rows = []
    for row in result["rows"]:
        for name in ("TextAttack", "compress"):
            side = row[name]
            rates = side["queries"] / side["seconds"], 60 * row["examples"] / side["seconds"]
            cells = [row["attack"], name, f"{rates[0]:.1f}", f"{rates[1]:.1f}"]
            different = f"{len(row['different_outcomes'])} of {row['examples']}"
            rows.append(
                [*cells, *(["1", ""] if name == "TextAttack" else [f"{row['times_faster']:.1f}", different])]
            )
    return markdown_table(header, rows)


def main(
    dense: Dense,
    test: Test,
    word_vectors: Annotated[
        str | None, typer.Option(help="Word vectors for TextFooler; computed with MiniLM if not given.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of both sides; 0 takes all cores.")] = 0,
    device: Annotated[str, typer.Option(help="Of both sides: auto, cpu or cuda.")] = "cpu",
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "attack_throughput.json",
    quick: Annotated[bool, typer.Option("--quick", help="Ten examples.")] = False,
) -> None:
    """Measure attacks against TextAttack's own way of running them."""
    run = RunConfig.model_validate({"threads": threads, "device": device})
    classifier = load_classifier(dense, prepare(run))
    columns = ColumnsConfig(max_length=MAX_LENGTH)
    data = load_text_data(test, columns, "test", label_names=classifier.label_names)
    sample = data.sample(QUICK_EXAMPLES if quick else EXAMPLES, SEED)
    result: dict[str, Any] = {"environment": describe_environment(run), "max_length": MAX_LENGTH, "rows": []}
    for attack in ATTACKS:
        config = AttackConfig(attack=attack, word_vectors=word_vectors)
        result["rows"].append(measure(classifier, sample, config))
        write_result(output, result)
    print(table(result))


if __name__ == "__main__":
    typer.run(main)
