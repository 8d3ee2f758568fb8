"""The wheel alone: what is in it, and that its commands work in a folder that is not the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from broken_artifacts import LENGTH
from project import ROOT
from tiny_checkpoints import make_checkpoint

from compressor.version import __version__

pytestmark = pytest.mark.slow

PACKAGES = ("compressor", "exporters")
# What a build reads of the checkout, and the tests, so that it could take them along.
SOURCES = (*PACKAGES, "tests", "benchmarks", "deploy", "docs")
FILES = ("cli.py", "pyproject.toml", "README.md", "LICENSE")
CALIBRATION = "text\tlabel\na fine film\tpos\na dull story\tneg\ngreat charm\tpos\nempty and dull\tneg\n"
TEST = "text\tlabel\na film of great charm\tpos\na dull and empty film\tneg\n"
RECIPE = """\
model: model
data: {calibration: calibration.tsv, test: test.tsv, max_length: 12}
run: {device: cpu, threads: 1}
prune: {algorithm: magnitude, sparsity: 0.5, calibration_examples: 4}
export: {parity_examples: 8}
attack: {attack: deepwordbug, attack_examples: 2}
validate: {batch_sizes: [1], sequence_lengths: [8], footprint: false, gates: []}
"""
# Names the modules of the program that come from another place than its folder.
STRANGERS = """
import sys, cli
code = cli.execute(sys.argv[2:])
own = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
found = [name for name, file in own.items()
         if file and name.partition(".")[0] in ("cli", "compressor", "exporters")
         and not file.startswith(sys.argv[1])]
sys.exit(code or f"from elsewhere: {found}" if found else code)
"""


def run(command: list, folder: Path, **variables: str) -> str:
    """Run a command that must succeed; what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the checkout, built in a copy of it and without an index."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    target = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", target]
    run([sys.executable, "-m", "pip", "wheel", *options, copy], copy)
    (found,) = target.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder with the wheel installed in it, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-index", "--no-compile", "--target", folder]
    run([sys.executable, "-m", "pip", "install", *options, wheel], folder)
    return folder


@pytest.fixture(scope="module")
def installed(site, tmp_path_factory):
    """A function that runs the installed program in a folder of its own, where no checkout is."""
    folder = tmp_path_factory.mktemp("elsewhere")
    make_checkpoint(folder / "model")
    (folder / "calibration.tsv").write_text(CALIBRATION)
    (folder / "test.tsv").write_text(TEST)
    (folder / "recipe.yaml").write_text(RECIPE)

    def call(*arguments) -> str:
        return run([sys.executable, "-c", STRANGERS, site, *arguments], folder, PYTHONPATH=str(site))

    call.folder = folder
    return call


def test_it_holds_the_sources_and_their_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == {*expected, "cli.py"}


def test_its_metadata_has_the_licence_the_program_and_the_version(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            name.partition(".dist-info/")[2]: archive.read(name).decode()
            for name in archive.namelist()
            if ".dist-info/" in name
        }
    assert texts["licenses/LICENSE"] == (ROOT / "LICENSE").read_text()
    assert "compress = cli:main" in texts["entry_points.txt"]
    assert f"\nVersion: {__version__}\n" in texts["METADATA"]
    assert "\nLicense-Expression: Apache-2.0 AND Unicode-3.0\n" in texts["METADATA"]
    assert "Root-Is-Purelib: true" in texts["WHEEL"]


def test_the_program_that_it_installs_knows_version_and_help(site, tmp_path):
    for option, part in (("--version", __version__), ("--help", "quickstart")):
        assert part in run([site / "bin" / "compress", option], tmp_path, PYTHONPATH=str(site))


@pytest.fixture(scope="module")
def result(installed):
    """The result of a whole run: dense model pruned, exported, attacked, compared."""
    installed("run", "recipe.yaml", "--output", "run")
    return installed.folder / "run"


def test_a_whole_run_needs_no_checkout(installed, result):
    installed("recipe", "init", "starter.yaml")
    assert (installed.folder / "starter.yaml").read_text().startswith("# ")
    for page in ("report.json", "report.md", "report.html"):
        assert (result / page).stat().st_size > 1000


def test_what_is_written_for_servers_needs_no_checkout(installed, result):
    installed("triton", result / "artifact", "--backends", "onnxruntime", "--output", "repository")
    assert list((installed.folder / "repository").rglob("config.pbtxt"))
    options = ["--target", "tensorrt", "--precision", "fp32", "--max-length", LENGTH, "--device", "cpu"]
    lengths = [f"--engine-lengths={length}" for length in (1, 8, LENGTH)]
    installed("export", "model", "--data", "test.tsv", *options, *lengths, "--output", "engine")
    assert (installed.folder / "engine" / "build_engine.sh").is_file()
