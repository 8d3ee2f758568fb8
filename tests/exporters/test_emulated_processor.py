"""An artifact for any processor answers the same on one without VNNI, which Debian's qemu-user emulates."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.models.portable import check_host
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters.stage import export_directory

EMULATOR = shutil.which("qemu-x86_64")
CPUINFO = Path("/proc/cpuinfo")
HAS_VNNI = CPUINFO.is_file() and "vnni" in CPUINFO.read_text()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(EMULATOR is None, reason="qemu-x86_64 (qemu-user) is not installed"),
]


@pytest.mark.parametrize("target", ["any", "avx512_vnni"])
def test_answers_under_avx2(target, small_pruned_dir, critic_quotes, tmp_path):
    context = Context(
        output=tmp_path / "artifact",
        columns=ColumnsConfig(max_length=32),
        run=RunConfig(device="cpu", threads=1),
        progress=SilentProgress(),
    )
    config = ExportConfig(precision="int8", target_isa=target, parity_examples=20, parity_agreement=0.9)
    export_directory(str(small_pruned_dir), str(critic_quotes / "small.tsv"), config, context)
    command = [
        EMULATOR,
        "-cpu",
        "Haswell",
        sys.executable,
        check_host.__file__,
        str(context.output),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    found = json.loads(done.stdout)
    if target == "any":
        assert (done.returncode, found["differs"], found["changed_labels"]) == (0, [], 0)
        # The last bit of what `reference.json` has in decimal digits.
        assert found["worst_difference"] <= 1e-6
    elif HAS_VNNI:
        assert (done.returncode, found["differs"]) == (1, ["kernels"])
