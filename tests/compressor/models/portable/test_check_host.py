"""The check of a host: what it finds, what it says of it, and what it does without."""

import json
import subprocess
import sys

import pytest
from damaged_answers import (
    REFERENCE,
    change_answers,
    change_reference,
    change_weights,
    read_reference_json,
    switch_case,
)
from project import ROOT

from compressor.models.portable import check_host as module
from compressor.models.portable.check_host import CheckError, check_host, read_reference

SCRIPT = ROOT / "deploy" / "docker" / "check_host.py"
ABSENT = (
    "torch",
    "transformers",
    "onnx",
    "huggingface_hub",
    "compressor",
    "exporters",
    "datasets",
    "pydantic",
)
START = (
    "import runpy, sys\n"
    f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
    f"sys.argv[0] = {str(SCRIPT)!r}\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


def run_script(*arguments):
    """The script in a process that can import no more than it says it needs."""
    command = [sys.executable, "-c", START, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_exporting_machine_gives_its_own_answers(artifact):
    found = check_host(artifact)
    assert (found.differs, found.problems, found.other_tokens, found.changed_labels) == ([], [], 0, 0)
    assert found.mean_difference <= found.worst_difference < 1e-6
    assert found.texts == len(read_reference_json(artifact)["vectors"])
    assert found.seconds > 0


def test_changed_weights_are_found_though_no_hash_is_compared(artifact):
    change_weights(artifact)
    found = check_host(artifact)
    assert found.differs == ["weights"]
    assert found.worst_difference > found.tolerance
    assert "model.onnx: the weights differ: logits differ" in found.problems[0]
    assert "restore the file" in found.problems[0]


def test_another_tokenizer_is_found_and_the_graph_is_not_blamed(artifact):
    switch_case(artifact)
    found = check_host(artifact)
    assert found.differs == ["tokenizer"]
    assert found.other_tokens > 0
    assert "tokenizer.json: the tokenizer differs: other token ids than recorded for" in found.problems[0]


@pytest.mark.parametrize("key", ["logits", "batch_logits"])
def test_other_kernels_are_told_from_other_weights(artifact, key):
    change_answers(artifact, 0.5, key)
    found = check_host(artifact)
    assert found.differs == ["kernels"]
    assert found.worst_difference == pytest.approx(0.5, rel=1e-3)
    assert found.changed_labels == 1
    (line,) = found.problems
    assert "the kernels differ: logits differ from the recorded ones by up to 5.0e-01" in line
    assert "labels of 1 of" in line
    assert "recorded with onnxruntime" in line
    assert "; here is onnxruntime" in line
    assert "\n" not in line


def test_a_small_difference_of_all_logits_is_found_by_their_mean(artifact):
    change_reference(artifact, tolerance=0.3, mean_tolerance=0.01)
    change_answers(artifact, 0.2)
    assert check_host(artifact).problems == []
    vectors = read_reference_json(artifact)["vectors"]
    for vector in vectors:
        vector["logits"][0] += 0.1
    change_reference(artifact, vectors=vectors)
    found = check_host(artifact)
    assert found.worst_difference < found.tolerance
    assert found.differs == ["kernels"]
    assert "on average by" in found.problems[0]


def test_a_difference_within_the_tolerance_is_none(artifact):
    change_answers(artifact, 0.5)
    change_reference(artifact, tolerance=0.6, mean_tolerance=0.6)
    found = check_host(artifact)
    assert found.problems == []
    assert found.changed_labels == 1


def test_logits_that_are_no_numbers_are_far_away(artifact):
    change_answers(artifact, float("nan"))
    found = check_host(artifact)
    assert found.differs == ["kernels"]
    json.dumps(found.worst_difference, allow_nan=False)


def test_the_script_needs_nothing_of_the_project(artifact):
    found = run_script(artifact)
    assert (found.returncode, found.stderr) == (0, "")
    assert "reference texts, logits differ from the recorded ones by up to" in found.stdout
    change_answers(artifact, 0.5)
    found = run_script(artifact, "--json")
    assert (found.returncode, found.stderr) == (1, "")
    assert json.loads(found.stdout)["differs"] == ["kernels"]
    (artifact / REFERENCE).unlink()
    found = run_script(artifact)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"error: {artifact / REFERENCE}: no such file, so this host cannot be")
    assert found.stderr.endswith("export it again with: compress export\n")


def test_the_script_is_the_products_module():
    assert SCRIPT.resolve() == ROOT / "compressor" / "models" / "portable" / "check_host.py"
    assert SCRIPT.read_bytes() == (ROOT / "compressor" / "models" / "portable" / "check_host.py").read_bytes()


def first_vector(**changes):
    def change(value):
        value["vectors"][0] |= changes

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda value: value.update(schema_version=2), "schema_version is 2, not 1"),
        (lambda value: value.pop("tolerance"), "has no tolerance"),
        (lambda value: value.update(tolerance=float("nan")), "tolerance: is nan"),
        (lambda value: value.update(tolerance=float("inf")), "tolerance: is inf"),
        (lambda value: value.update(mean_tolerance=-1), "mean_tolerance: is -1.0"),
        (lambda value: value.update(vectors=[]), "logits are not one row"),
        (lambda value: value.update(vectors=[1]), "is broken"),
        (lambda value: value.update(recorded_with=[]), "is broken"),
        (
            lambda value: value.update(runtime="other"),
            "runtime: is 'other', not one of onnxruntime",
        ),
        (lambda value: value.update({"pad_token_id": "0"}), "pad_token_id: holds what is no token id"),
        (first_vector(tokens=[2]), "are not of one length"),
        (first_vector(tokens=[], segments=[]), "are not of one length"),
        (first_vector(tokens=[10**30], segments=[0]), "holds what is no token id"),
        (first_vector(logits=[1.0]), "is broken"),
        (first_vector(logits="many"), "is broken"),
    ],
)
def test_a_broken_file_is_named(artifact, change, says):
    value = read_reference_json(artifact)
    change(value)
    (artifact / REFERENCE).write_text(json.dumps(value))
    with pytest.raises(CheckError) as caught:
        read_reference(artifact)
    line = str(caught.value)
    assert line.startswith(f"{artifact / REFERENCE}: ")
    assert says in line
    assert line.endswith("export it again with: compress export")
    assert "\n" not in line


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '"\udcff"'])
def test_a_file_that_is_no_json_object_is_named(artifact, content):
    (artifact / REFERENCE).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckError, match=rf"{REFERENCE}: "):
        read_reference(artifact)


@pytest.mark.parametrize(
    ("name", "says"),
    [("model.onnx", "cannot be loaded by ONNX Runtime"), ("tokenizer.json", "cannot be loaded, or encodes")],
)
def test_a_file_that_does_not_load_is_named(artifact, name, says):
    (artifact / name).write_bytes(b"x")
    with pytest.raises(CheckError, match=rf"{name}: {says}"):
        check_host(artifact)


def test_token_ids_that_the_graph_lacks_are_an_error(artifact):
    vectors = read_reference_json(artifact)["vectors"]
    vectors[0] |= {"tokens": [10**6], "segments": [0]}
    change_reference(artifact, vectors=vectors)
    with pytest.raises(CheckError, match=r"model\.onnx: does not run on an input of shape \(1, 1\)"):
        check_host(artifact)


def test_a_tokenizer_of_transformers_alone_is_not_checked(artifact):
    change_reference(artifact, tokenizer_unchecked="it is slow")
    (artifact / "tokenizer.json").unlink()
    found = check_host(artifact)
    assert (found.other_tokens, found.problems) == (None, [])
    assert "token ids not checked" in found.summary


def test_a_regression_has_no_labels(artifact):
    reference = read_reference(artifact)

    class OneNumber:
        inputs = ()

        def run(self, feeds):
            return [[0.5]] if self.alone.pop() else [[0.5]] * len(reference.batch)

    session = OneNumber()
    session.alone = [False] + [True] * len(reference.vectors)
    numbers = reference.alone[:, :1] * 0 + 0.5
    changed = module.Reference(**{**vars(reference), "alone": numbers, "together": numbers[reference.batch]})
    found = module.check_session(changed, artifact, session)
    assert (found.changed_labels, found.problems) == (None, [])
    assert "labels" not in found.summary
