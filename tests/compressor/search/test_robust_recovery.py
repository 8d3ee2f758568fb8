"""Whether the recovery of a search's candidates is robust."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from compressor.options import AttackConfig, ColumnsConfig, RunConfig, SearchConfig, ValidateConfig
from compressor.search.candidates import CandidateStore, SearchJob
from compressor.system.console import SilentProgress
from compressor.system.context import Context

ATTACKED = "accuracy_under_attack_drop <= 0.05"


def recovers_robustly(gate, tmp_path, **search):
    job = SearchJob(
        model="m",
        calibration="c",
        selection="s",
        test="t",
        vocabulary=None,
        config=SearchConfig(**search),
        validate=ValidateConfig(gates=[gate]),
        attack=AttackConfig(),
    )
    run = RunConfig(device="cpu")
    context = Context(output=tmp_path / "out", columns=ColumnsConfig(), run=run, progress=SilentProgress())
    return CandidateStore(job, context).prune_config(Path("table.json"), 2.0).adaptive.robust


@pytest.mark.parametrize(
    ("gate", "search", "robust"),
    [
        (ATTACKED, {}, True),
        ("accuracy_drop <= 0.01", {}, False),
        (f"warn: {ATTACKED}", {}, False),
        (ATTACKED, {"recovery_robust": False}, False),
        ("accuracy_drop <= 0.01", {"recovery_robust": True}, True),
        (ATTACKED, {"recovery_steps": 0}, False),
    ],
)
def test_a_gate_on_an_attack_makes_the_recovery_robust(tmp_path, gate, search, robust):
    assert recovers_robustly(gate, tmp_path, **search) == robust


def test_a_robust_recovery_needs_steps():
    with pytest.raises(ValidationError, match="recovery_robust: there is no recovery; give recovery_steps"):
        SearchConfig(recovery_robust=True, recovery_steps=0)
