"""The attack stage: a classifier or artifact and labelled texts in, figures and examples out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compressor.attacks.comparison import FinishedAttack, compare, load_attack
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
from compressor.attacks.results import AttackFigures, AttackRecord
from compressor.attacks.runner import attack_model, check_classes
from compressor.attacks.several import KeptOfOne, under_all
from compressor.attacks.victims import Victim
from compressor.data.texts import TextData, load_text_data, log_notes
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.models.reuse import decides, predictor_content
from compressor.models.runtimes import load_predictor
from compressor.options import AttackConfig, RunConfig
from compressor.system.checkpoint import NoCheckpoint, open_shared_checkpoint, remove_checkpoint
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
    `examples.html`, a page to read them on. Of several attacks these are about all of them together, and a
    directory of each one's name has its own.

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
    others = None if against is None else _others(against, config, run.seed, sample)
    encoder = SentenceEncoder(sentence_encoder_directory(config), predictor.device)
    check_space(output, RECORD_BYTES)
    decisive = attack_decides(config, run, sample.fingerprint, columns.max_length, model=model)
    job = Job(decisive, {"model": model, "data.test": data_source}, describe_machine(run))
    checkpoint = open_shared_checkpoint(ranks, job, context)
    victim = Victim(predictor, columns.max_length)
    made = [
        _Attacked(one, *attack_model(model, victim, sample, one, context, _kept(checkpoint, one, config)))
        for one in config.each()
    ]
    if not ranks.is_first:
        ranks.wait()
        return AttackRecord(**read_json(output / ROBUSTNESS_RECORD), path=output)
    facts = {
        "model": model,
        "data": data.record(columns),
        "seed": run.seed,
        "similarity": f"cosine of embeddings by {describe_sentence_encoder(config)}",
        "environment": describe_environment(run),
        **checkpoint.began_on,
    }
    made = [replace(one, examples=with_cosines(one.examples, encoder)) for one in made]
    whole = _Attacked.together(config, made)
    several = made if len(made) > 1 else []
    records = {}
    for attacked in (whole, *several):
        name = attacked.config.attack
        records[name] = _record(attacked, facts, None if others is None else others[name], victim)
    record = records[config.attack]
    if several:
        record["attacks"] = [_of_one(records[one.config.attack]) for one in several]
    with atomic_directory(output, force=context.force) as working:
        _write(working, record, whole.examples, predictor.label_names)
        for one in several:
            name = one.config.attack
            _write(working / name, records[name], one.examples, predictor.label_names)
    remove_checkpoint(checkpoint)
    ranks.wait()
    return AttackRecord(**record, path=output)


def _kept(checkpoint: NoCheckpoint, one: AttackConfig, config: AttackConfig) -> NoCheckpoint:
    """Return where the finished examples of one attack of `config` are kept."""
    return checkpoint if one is config else KeptOfOne(checkpoint, one.attack)


@dataclass(frozen=True)
class _Attacked:
    """What became of the examples under an attack, or under all of several."""

    config: AttackConfig
    examples: list[AttackedExample]
    resources: dict[str, str]

    @classmethod
    def together(cls, config: AttackConfig, made: Sequence[_Attacked]) -> _Attacked:
        """Return what all attacks of `config` came to; of a single one, this itself."""
        if len(made) == 1:
            return made[0]
        resources = {name: text for one in made for name, text in one.resources.items()}
        return cls(config, under_all([one.examples for one in made]), resources)


def _others(against: Path, config: AttackConfig, seed: int, data: TextData) -> dict[str, FinishedAttack]:
    """Load the attacks on another model, each of several in a directory of its name, by their names.

    Raises:
        UserError: see `load_attack`.
    """
    found = {config.attack: load_attack(against, config.model_dump(), seed, data)}
    for one in config.each():
        if one is not config:
            found[one.attack] = load_attack(against / one.attack, one.model_dump(), seed, data)
    return found


def _record(
    made: _Attacked, facts: Mapping[str, Any], other: FinishedAttack | None, victim: Victim
) -> dict[str, Any]:
    """Return the content of `robustness.json`.

    Raises:
        UserError: the other model was attacked with other resources.
    """
    config = made.config
    record = {
        **_figures(made.examples, config),
        **facts,
        "options": config.model_dump(),
        "resources": made.resources,
    }
    if other is not None:
        other.check("resources", made.resources)
        record["against"] = compare(
            other, made.examples, victim, config.exact_word_budgets, config.longest_word_budget
        )
    return record


def _of_one(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of several attacks tells of one of them."""
    return {name: record[name] for name in AttackFigures.model_fields if name in record}


def _write(
    folder: Path, record: Mapping[str, Any], examples: Sequence[AttackedExample], label_names: Sequence[str]
) -> None:
    folder.mkdir(exist_ok=True)
    write_json(folder / ROBUSTNESS_RECORD, record)
    write_json_lines(folder / EXAMPLES_RECORD, map(asdict, examples))
    page = render_page(record, examples, label_names)
    (folder / EXAMPLES_PAGE).write_text(page, encoding="utf-8")


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
