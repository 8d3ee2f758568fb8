"""Whether the recovery of a search's candidates is robust."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from compressor.options import AttackConfig, ColumnsConfig, RunConfig, SearchConfig, ValidateConfig
from compressor.search.candidates import CandidateStore, SearchJob
from compressor.system.console import SilentProgress
from compressor.system.context import Context


def recovers_robustly(tmp_path, **search):
    job = SearchJob(
        model="m",
        calibration="c",
        selection="s",
        test="t",
        vocabulary=None,
        config=SearchConfig(**search),
        validate=ValidateConfig(gates=["accuracy_under_attack_drop <= 0.05"]),
        attack=AttackConfig(),
    )
    run = RunConfig(device="cpu")
    context = Context(output=tmp_path / "out", columns=ColumnsConfig(), run=run, progress=SilentProgress())
    return CandidateStore(job, context).prune_config(Path("table.json"), 2.0).adaptive.robust


@pytest.mark.parametrize("robust", [False, True])
def test_the_recovery_is_robust_as_the_option_says(tmp_path, robust):
    assert recovers_robustly(tmp_path, recovery_robust=robust) == robust


def test_a_robust_recovery_needs_steps():
    with pytest.raises(ValidationError, match="recovery_robust: there is no recovery; give recovery_steps"):
        SearchConfig(recovery_robust=True, recovery_steps=0)
