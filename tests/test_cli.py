"""The command line as a person or a script meets it."""

import contextlib
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from project import ROOT

import cli

TRTEXEC_LOG = ROOT / "tests/exporters/tensorrt/trtexec/tensorrt_10.txt"
COMMANDS = ("finetune", "prune", "attack", "export", "validate", "inspect", "run", "quickstart", "doctor")


def compress(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command from the project's root, in this process: to import PyTorch anew takes seconds."""
    printed, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
    ):
        patch.chdir(ROOT)
        for name, value in {"COLUMNS": "200", **environment}.items():
            patch.setenv(name, value)
        code = cli.execute([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, code, printed.getvalue(), errors.getvalue())


def compress_by_itself(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a person or a script does, in a process of its own."""
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def one_line_of(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_names_the_common_options(command):
    result = compress(command, "--help")
    assert result.returncode == 0
    for option in ("--device", "--seed", "--output", "--json"):
        assert option in result.stdout, option


def test_help_shows_defaults():
    text = compress("finetune", "--help").stdout
    assert re.search(r"--epochs[^-]*\[default: 2\]", text), text


def test_help_imports_nothing_heavy():
    script = (
        "import sys, cli\n"
        "cli.execute(['--help'])\n"
        "heavy = {'torch', 'transformers', 'onnx', 'numpy', 'datasets', 'textattack', 'mlflow'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_version():
    assert re.fullmatch(r"compress \d+\.\d+\.\d+\n", compress_by_itself("--version").stdout)


@pytest.fixture(scope="module")
def stages(critic_quotes, small_classifier_dir, tmp_path_factory) -> dict[str, Path]:
    """Each stage by hand, as the README shows it."""
    folder = tmp_path_factory.mktemp("stages")
    paths = {"dense": small_classifier_dir, "pruned": folder / "pruned", "artifact": folder / "artifact"}
    result = compress(
        "prune", paths["dense"], "--algorithm", "adaptive", "--pattern", "2:4", "--sparsity", "0.5",
        "--calibration", critic_quotes / "train.tsv", "--calibration-examples", "128", "--max-length", "48",
        "--output", paths["pruned"],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    result = compress("export", paths["pruned"], "--output", paths["artifact"])
    assert result.returncode == 0, result.stderr
    return paths


def validate(stages, critic_quotes, output, *extra):
    return compress(
        "validate", stages["dense"], stages["artifact"], "--data", critic_quotes / "test.tsv",
        "--max-length", "48", "--attack-examples", "10", "--batch-sizes", "1", "--sequence-lengths", "16",
        "--latency-rounds", "3", "--no-footprint", "--output", output, *extra,
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine_dir(stages, tmp_path_factory):
    """What build_engine.sh would have left of the artifact's graph."""
    folder = tmp_path_factory.mktemp("engine")
    shutil.copyfile(TRTEXEC_LOG, folder / "trtexec.log")
    graph = (stages["artifact"] / "model.onnx").read_bytes()
    (folder / "graph.sha256").write_text(hashlib.sha256(graph).hexdigest())
    return folder


@pytest.fixture(scope="module")
def validated(stages, engine_dir, critic_quotes, tmp_path_factory):
    output = tmp_path_factory.mktemp("validated") / "v"
    gate = "accuracy_under_attack_drop_within_budgets <= 1"
    more = (
        "--json",
        "--seed",
        "1",
        "--footprint",
        "--engine",
        engine_dir,
        "--attack",
        "pwws",
        "--gates",
        gate,
    )
    return output, validate(stages, critic_quotes, output, *more)


def test_validate_prints_one_json_object_that_is_the_report(validated):
    output, result = validated
    report = json.loads(result.stdout)
    assert report == json.loads((output / "report.json").read_text())
    assert report["variants"]["pruned"]["sparsity"] == 0.5
    assert report["seed"] == 1
    assert all(figures["footprint"]["load_seconds"] > 0 for figures in report["variants"].values())
    assert result.returncode == {"pass": 0, "fail": 1}[report["verdict"]]


def test_a_report_tells_what_is_left_within_word_budgets(validated):
    output, result = validated
    report = json.loads(result.stdout)
    attack = json.loads((output / "attack" / "artifact" / "robustness.json").read_text())
    artifact = report["variants"]["artifact"]
    assert artifact["robustness"]["word_budgets"] == attack["word_budgets"]
    assert artifact["against_dense"]["word_budgets"] == attack["against"]["word_budgets"]
    assert [entry["max_words_changed"] for entry in attack["word_budgets"]] == [0.05, 0.1, 0.15, 0.2]
    (gate,) = report["gates"]
    assert gate["place"].endswith(" of words")
    assert "Within 5% of words, drop to dense" in (output / "report.html").read_text()


def test_a_report_has_the_figures_of_the_engine_that_it_was_given(validated):
    output, _ = validated
    engine = json.loads((output / "report.json").read_text())["engine"]
    assert (engine["version"], engine["chosen"]["count"]) == ("10.14.1", 1)
    assert engine["gpu_latency"]["median_ms"] == 1.375
    page = (output / "report.html").read_text()
    assert "TensorRT 10.14.1" in page
    assert "median 1.375 ms" in page


def test_an_engine_of_another_graph_is_refused_before_anything_is_measured(
    stages, engine_dir, critic_quotes, tmp_path
):
    other = shutil.copytree(engine_dir, tmp_path / "engine")
    (other / "graph.sha256").write_text("0" * 64)
    result = validate(stages, critic_quotes, tmp_path / "v", "--engine", other)
    assert result.returncode == 2
    assert "holds a build of another graph" in one_line_of(result)
    assert not (tmp_path / "v").exists()


def test_a_broken_gate_gives_exit_code_1_and_is_named(validated, stages, critic_quotes, tmp_path):
    baseline, _ = validated
    output = tmp_path / "v"
    result = validate(
        stages, critic_quotes, output, "--baseline", baseline, "--gates", "sparsity >= 0.9",
        "--gates", "certain: accuracy >= baseline", "--gates", "warn: size_mb <= 0.9 * baseline",
        "--attack", "pwws",
    )  # fmt: skip
    assert result.returncode == 1
    assert "gate failed: sparsity is 0.5, bound >= 0.9" in result.stderr
    assert (output / "report.html").is_file()
    gates = json.loads((output / "report.json").read_text())["gates"]
    # The same answers example by example: nothing is left to be uncertain about but ties.
    assert [gate["status"] for gate in gates] == ["fail", "fail", "warn"]
    assert gates[1]["value"] == gates[1]["limit"]
    assert ElementTree.parse(output / "junit.xml").getroot().get("failures") == "2"  # noqa: S314
    compared = json.loads(compress("compare", baseline, output, "--json").stdout)
    assert compared["differs"] == {}
    assert compared["seeds"] == [1, 0]
    accuracy = next(figure for figure in compared["figures"] if figure["metric"] == "accuracy")
    assert accuracy["difference"] == 0


def test_attack_on_the_artifact(stages, critic_quotes, tmp_path):
    result = compress(
        "attack", stages["artifact"], "--data", critic_quotes / "test.tsv", "--attack-examples", "5",
        "--max-length", "48", "--output", tmp_path / "a", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["examples"] == 5


def test_inspect_counts_zeros_and_sees_the_pattern(stages):
    for kind in ("pruned", "artifact"):
        facts = json.loads(compress("inspect", stages[kind], "--json").stdout)
        assert facts["sparsity"] == 0.5
        for layer in facts["layers"]:
            assert layer["zeros"] * 2 == layer["shape"][0] * layer["shape"][1]
            assert "2:4" in layer["patterns"]


def test_finetune_from_an_encoder(critic_quotes, small_encoder_dir, tmp_path):
    result = compress(
        "finetune", small_encoder_dir, "--data", critic_quotes / "small.tsv", "--epochs", "1",
        "--max-length", "16", "--output", tmp_path / "dense", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["labels"] == ["fresh", "rotten"]
    assert (tmp_path / "dense" / "model.safetensors").is_file()


def test_doctor_finds_this_machine_ready():
    result = compress("doctor", "--json", "--device", "cpu")
    checks = json.loads(result.stdout)
    assert checks["ok"] is True, checks
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prune", "{dense}", "--calibration", "nothing.tsv"], "nothing.tsv: no such file"),
        (["prune", "nowhere/at/all", "--calibration", "{data}"], "no such model directory"),
        (["prune", "{dense}", "--calibration", "{data}", "--sparsity", "1"], "--sparsity"),
        (["prune", "{dense}", "--calibration", "{data}", "--sparsity", "-0.1"], "--sparsity"),
        (["prune", "{dense}", "--calibration", "{data}", "--pattern", "3:7"], "does not divide"),
        (["prune", "{dense}", "--calibration", "{data}", "--pattern", "2:4", "--sparsity", "0.7"], "2:4"),
        (["prune", "{dense}", "--calibration", "{data}", "--text-column", "txt"], "no column 'txt'"),
        (["prune", "{dense}", "--calibration", "{data}", "--device", "tpu"], "--device"),
        (["prune", "{dense}", "--calibration", "{data}", "--sparsiti", "0.5"], "--sparsity"),
        (["finetune", "{dense}", "--data", "{one_class}"], "one class only"),
        (
            ["attack", "{dense}", "--data", "{data}", "--label-map", "fresh=good,rotten=fresh"],
            "class 'good' of label",
        ),
        (["attack", "{dense}", "--data", "{empty}"], "is empty"),
        (["export", "{data}"], "no such model directory"),
        (["validate", "{dense}", "{dense}", "--data", "{data}"], "manifest.json"),
        (
            ["validate", "{dense}", "{dense}", "--data", "{data}", "--gates", "accuracy >= baseline"],
            "give a report with --baseline",
        ),
        (["run", "{recipe}"], "did you mean 'sparsity'?"),
    ],
)
def test_bad_input_gets_one_line_exit_code_2_and_leaves_nothing(
    arguments, says, critic_quotes, small_classifier_dir, tmp_path
):
    files = tmp_path / "files"
    files.mkdir()
    (files / "one.tsv").write_text("text\tlabel\na\tfresh\nb\tfresh\n")
    (files / "empty.tsv").write_text("")
    (files / "recipe.yaml").write_text(
        "model: m\ndata:\n  calibration: c.tsv\n  test: t.tsv\nprune:\n  sparsty: 0.5\n"
    )
    names = {
        "dense": small_classifier_dir,
        "data": critic_quotes / "small.tsv",
        "one_class": files / "one.tsv",
        "empty": files / "empty.tsv",
        "recipe": files / "recipe.yaml",
    }
    output = tmp_path / "deep" / "out"
    result = compress(*(argument.format(**names) for argument in arguments), "--output", output)
    assert result.returncode == 2
    assert says in one_line_of(result)
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


def test_errors_are_json_too(tmp_path):
    result = compress("inspect", tmp_path / "nothing", "--json")
    assert result.returncode == 2
    assert "no such model directory" in json.loads(result.stdout)["error"]


def test_an_existing_output_is_kept(stages, critic_quotes, small_classifier_dir):
    before = (stages["pruned"] / "pruning.json").read_bytes()
    result = compress(
        "prune",
        small_classifier_dir,
        "--calibration",
        critic_quotes / "train.tsv",
        "--output",
        stages["pruned"],
    )
    assert result.returncode == 2
    assert "--force" in one_line_of(result)
    assert (stages["pruned"] / "pruning.json").read_bytes() == before


def test_a_full_disk_gets_one_line_and_leaves_nothing(stages, critic_quotes, tmp_path):
    """The limit on file size makes the kernel refuse a real write, as a full disk does."""
    script = (
        "import resource, signal, sys, cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "sys.exit(cli.execute(sys.argv[1:]))"
    )
    arguments = [
        "prune",
        stages["dense"],
        "--algorithm",
        "magnitude",
        "--calibration",
        critic_quotes / "small.tsv",
    ]
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments), "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 2
    assert "no space left" in one_line_of(result)
    assert list(tmp_path.iterdir()) == []
