"""The attack stage: a classifier or artifact and labelled texts in, figures and examples out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from compressor.attacks.comparison import compare, load_attack
from compressor.attacks.page import EXAMPLES_PAGE, render_page
from compressor.attacks.records import (
    EXAMPLES_RECORD,
    ROBUSTNESS_RECORD,
    AttackedExample,
    mean_accuracy,
    successes,
    summarize,
    under_word_budgets,
)
from compressor.attacks.resources import describe_sentence_encoder, sentence_encoder_directory
from compressor.attacks.results import AttackRecord
from compressor.attacks.runner import attack_model, check_classes
from compressor.attacks.victims import Victim
from compressor.data.texts import load_text_data, log_notes
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.models.reuse import decides, predictor_content
from compressor.models.runtimes import load_predictor
from compressor.options import AttackConfig, RunConfig
from compressor.system.checkpoint import open_shared_checkpoint, remove_checkpoint
from compressor.system.context import Context
from compressor.system.environment import describe_environment
from compressor.system.files import (
    atomic_directory,
    check_space,
    claims_output,
    read_json,
    write_json,
    write_json_lines,
)
from compressor.system.jobs import Job, describe_machine
from compressor.system.ranks import join_ranks

RECORD_BYTES = 10**6


@claims_output
def attack_directory(
    model: str,
    data_source: str,
    config: AttackConfig,
    context: Context,
    against: Path | None = None,
) -> AttackRecord:
    """Run the attack stage: a classifier or artifact and labelled texts in, figures and examples out.

    Writes `robustness.json`, whose content is returned, `examples.jsonl`, one line an example, and
    `examples.html`, a page to read them on.

    Finished examples are kept beside the output until it is whole: a run that was stopped goes on after
    them if it is started again.

    Args:
        against: what this stage wrote for another model, with which this one is compared.

    Raises:
        UserError: bad model, data, resources or output.
    """
    columns, run, output = context.columns, context.run, context.output
    # First of all: it says on which GPU a model is loaded.
    ranks = join_ranks()
    predictor = load_predictor(model, run, columns.max_length)
    check_classes(model, predictor)
    data = load_text_data(data_source, columns, "test", label_names=predictor.label_names)
    log_notes(data, context.progress)
    predictor.check_pairs(data.pairs is not None)
    sample = data.sample(config.attack_examples, run.seed)
    options = config.model_dump()
    other = None if against is None else load_attack(against, options, run.seed, sample)
    facts = {
        "model": model,
        "data": data.record(columns),
        "options": options,
        "seed": run.seed,
    }
    encoder = SentenceEncoder(sentence_encoder_directory(config), predictor.device)
    check_space(output, RECORD_BYTES)
    decisive = attack_decides(config, run, sample.fingerprint, columns.max_length, model=model)
    job = Job(decisive, {"model": model, "data.test": data_source}, describe_machine(run))
    checkpoint = open_shared_checkpoint(ranks, job, context)
    victim = Victim(predictor, columns.max_length)
    examples, resources = attack_model(model, victim, sample, config, context, checkpoint)
    if not ranks.is_first:
        ranks.wait()
        return AttackRecord(**read_json(output / ROBUSTNESS_RECORD), path=output)
    examples = with_cosines(examples, encoder)
    word_budgets, longest = config.exact_word_budgets, config.longest_word_budget
    record = {
        **_figures(examples, config),
        **facts,
        "resources": resources,
        "similarity": f"cosine of embeddings by {describe_sentence_encoder(config)}",
        "environment": describe_environment(run),
        **checkpoint.began_on,
    }
    if other is not None:
        other.check("resources", resources)
        record["against"] = compare(other, examples, victim, word_budgets, longest)
    with atomic_directory(output, force=context.force) as working:
        write_json(working / ROBUSTNESS_RECORD, record)
        write_json_lines(working / EXAMPLES_RECORD, map(asdict, examples))
        page = render_page(record, examples, predictor.label_names)
        (working / EXAMPLES_PAGE).write_text(page, encoding="utf-8")
    remove_checkpoint(checkpoint)
    ranks.wait()
    return AttackRecord(**record, path=output)


def _figures(examples: list[AttackedExample], config: AttackConfig) -> dict[str, Any]:
    """Return what the attacked examples amount to, ready for JSON."""
    longest = config.longest_word_budget
    budgets = under_word_budgets(examples, config.exact_word_budgets)
    return {
        **asdict(summarize(examples, config.attack)),
        "successes": asdict(successes(examples)),
        "word_budgets": [asdict(budget) for budget in budgets],
        "mean_accuracy_under_attack": None if longest is None else asdict(mean_accuracy(examples, longest)),
    }


def attack_decides(
    config: AttackConfig, run: RunConfig, data: str, max_length: int, **models: str
) -> dict[str, Any]:
    """All that decides what becomes of attacked examples, ready for JSON.

    Args:
        data: fingerprint of the attacked texts.
        models: the attacked classifiers or artifacts by their keys.

    Raises:
        UserError: see `compressor.models.reuse.decides`; a model is none.
    """
    contents = {name: {"content": predictor_content(model)} for name, model in models.items()}
    inputs = {"data": {"test": {"content": data}, "max_length": max_length}, **contents}
    return decides("attack", run, {"attack": config}, **inputs)


def with_cosines(examples: Sequence[AttackedExample], encoder: SentenceEncoder) -> list[AttackedExample]:
    """The examples, where the attack succeeded with the cosine of both texts' embeddings."""
    fooled = [example for example in examples if example.outcome == "succeeded"]
    if not fooled:
        return list(examples)
    before = encoder.encode([_joined(e.text, e.text_pair) for e in fooled])
    after = encoder.encode([_joined(e.perturbed, e.perturbed_pair) for e in fooled])
    cosines = iter((before * after).sum(dim=1).tolist())
    return [replace(e, cosine=round(next(cosines), 6)) if e.outcome == "succeeded" else e for e in examples]


def _joined(text: str, pair: str | None) -> str:
    return text if pair is None else f"{text} {pair}"
