"""An attack of which a process is killed, as happens where memory is short."""

import json

import processes
import pytest

from compressor.attacks import runner as run
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.options import AttackConfig, ColumnsConfig, RunConfig
from compressor.system.checkpoint import Checkpoint
from compressor.system.console import SilentProgress
from compressor.system.context import Context


def test_a_killed_process_is_one_line_and_what_was_finished_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_start_worker", processes.begin)
    monkeypatch.setattr(run, "_attack_in_worker", processes.attacked_or_killed)
    data = TextData([f"text {number}" for number in range(9)], None, [0] * 9, ["a", "b"], "texts")
    checkpoint = Checkpoint(tmp_path / "kept")
    context = Context(
        output=tmp_path / "out",
        columns=ColumnsConfig(max_length=16),
        run=RunConfig(threads=2),
        progress=SilentProgress(),
        processes=2,
    )
    with pytest.raises(UserError, match=r"m: an attacking process was killed by signal 9 .*start it again"):
        run.attack_in_processes("m", data, AttackConfig(), context, checkpoint)
    lines = checkpoint.lines(run.FINISHED_EXAMPLES)
    found = {json.loads(line)["index"] for line in lines}
    assert len(lines) == len(found)
    assert {0, 1, 2, 3} <= found <= set(range(9)) - {4}
