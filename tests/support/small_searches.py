"""Searches that take seconds: few candidates, cheap ones."""

from compressor.options import AttackConfig, ColumnsConfig, RunConfig, SearchConfig, ValidateConfig
from compressor.search.candidates import SearchJob
from compressor.system.console import SilentProgress
from compressor.system.context import Context

# Two candidates beside the dense model, cheap ones.
QUICK = SearchConfig(
    candidates=2, calibration_examples=32, recovery_steps=4, recovery_examples=32, budget_minutes=600
)
TIMING = {
    "batch_sizes": [1], "sequence_lengths": [16], "latency_rounds": 3, "footprint": False,
    "invariance_examples": 8,
}  # fmt: skip
# Gates that all candidates hold.
LOOSE = ["accuracy_drop <= 0.9", "batch_disagreement <= 0.1"]


def job_of(model, texts, config=QUICK, **validate):
    """A search for an artifact of a classifier, with the texts of a folder."""
    return SearchJob(
        model=str(model),
        calibration=str(texts / "calibration.tsv"),
        selection=str(texts / "selection.tsv"),
        test=str(texts / "test.tsv"),
        vocabulary=None,
        config=config,
        validate=ValidateConfig(**TIMING, **validate),
        attack=AttackConfig(attack="deepwordbug", attack_examples=4),
    )


def context_of(folder, threads=1):
    """Where a search writes: into the folder, in place of the search before it."""
    return Context(
        output=folder / "search",
        columns=ColumnsConfig(max_length=64),
        run=RunConfig(device="cpu", threads=threads),
        progress=SilentProgress(),
        force=True,
    )
