"""`reference.json`: what an export records, of which texts, and how far other hosts may be from it."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from damaged_answers import REFERENCE, read_reference_json
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from tokenizers import Tokenizer

from compressor.config.recipe import Recipe
from compressor.errors import UserError
from compressor.models.manifest import artifact_problems, read_manifest
from compressor.models.portable.check_host import check_host, check_session, read_reference
from compressor.options import ColumnsConfig, DataConfig, ExportConfig, RunConfig
from compressor.pipeline.keys import ARTIFACT, Stage
from compressor.pipeline.stage_runs import run_stage
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters import reference as module
from exporters.reference import LONGEST_IN_BATCH, tolerances_of
from exporters.reference_texts import MADE, MADE_PAIRS, MOST_GIVEN
from exporters.stage import export_directory
from exporters.texts import ExportTexts

INT8 = ("int8", "int8-dynamic", "int8-static")
LENGTH = 48


def export(model, output, data, reference=None, **options):
    context = Context(
        output=output,
        columns=ColumnsConfig(max_length=LENGTH),
        run=RunConfig(device="cpu", threads=2),
        progress=SilentProgress(),
    )
    config = ExportConfig(**{"parity_examples": 32, **options})
    calibration = str(data) if options.get("precision") == "int8-static" else None
    return export_directory(str(model), str(data), config, context, ExportTexts(calibration, reference))


def test_made_texts_are_few_and_of_many_kinds(small_artifact_dir):
    vectors = read_reference_json(small_artifact_dir)["vectors"]
    texts = [vector["text"] for vector in vectors if vector["pair"] is None]
    assert texts[:-1] == list(MADE)
    assert [(vector["text"], vector["pair"]) for vector in vectors[len(texts) : -1]] == list(MADE_PAIRS)
    assert 16 <= len(vectors) <= 32
    # The last text and the last pair are cut at the longest input.
    for vector in (vectors[len(MADE)], vectors[-1]):
        assert len(vector["tokens"]) == LENGTH
    assert vectors[-1]["segments"][-1] == 1
    assert (small_artifact_dir / REFERENCE).stat().st_size < 30_000


def test_no_text_of_the_data_is_in_it(small_artifact_dir, quotes):
    content = (small_artifact_dir / REFERENCE).read_text(encoding="utf-8")
    assert not any(text in content for text in quotes.texts)


def test_the_manifest_signs_it(small_artifact_dir):
    manifest = read_manifest(small_artifact_dir)
    assert REFERENCE in manifest["files"]
    value = read_reference_json(small_artifact_dir)
    stated = manifest["reference"]
    assert stated == {
        "file": REFERENCE,
        "source": "made",
        "texts": len(value["vectors"]),
        "max_difference": stated["max_difference"],
        "mean_difference": stated["mean_difference"],
        "tolerance": value["tolerance"],
        "mean_tolerance": value["mean_tolerance"],
    }
    assert 0 < stated["mean_difference"] < stated["max_difference"] <= 1e-4
    assert value["graph_sha256"] == manifest["files"]["model.onnx"]["sha256"]
    assert value["tolerance"] == 1e-4


def test_ids_and_logits_are_those_of_the_files_alone(small_artifact_dir):
    """A reference of its own: nothing of the module that records or compares."""
    tokenizer = Tokenizer.from_file(str(small_artifact_dir / "tokenizer.json"))
    session = onnxruntime.InferenceSession(small_artifact_dir / "model.onnx")
    for vector in read_reference_json(small_artifact_dir)["vectors"]:
        (entry,) = tokenizer.encode_batch(
            [vector["text"] if vector["pair"] is None else (vector["text"], vector["pair"])]
        )
        assert (entry.ids, entry.type_ids) == (vector["tokens"], vector["segments"])
        feeds = {
            "input_ids": np.array([entry.ids]),
            "attention_mask": np.array([entry.attention_mask]),
            "token_type_ids": np.array([entry.type_ids]),
        }
        (logits,) = session.run(None, feeds)[0]
        assert np.abs(logits - vector["logits"]).max() < 1e-5
        assert np.abs(logits - vector["batch_logits"]).max() < 1e-5


class UnfusedGraph:
    """A graph in ONNX Runtime without its graph optimizations."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(path, options)
        self.inputs = [entry.name for entry in self._session.get_inputs()]

    def run(self, feeds):
        return self._session.run(None, feeds)[0]


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("fp32", {"storage": "sparse"}),
        ("fp16", {}),
        ("int8", {}),
        ("int8", {"weight_bits": 7}),
        ("int8-dynamic", {}),
        ("int8-static", {}),
    ],
)
def test_an_artifact_of_every_precision_proves_itself(
    half_as_wide_dir, critic_quotes, tmp_path, precision, options
):
    """Structured, so that the graph is another than the checkpoint's."""
    record = export(
        half_as_wide_dir,
        tmp_path / "artifact",
        critic_quotes / "test.tsv",
        precision=precision,
        parity_agreement=0.8,
        **options,
    )
    assert artifact_problems(record.path) == []
    found = check_host(record.path)
    assert found.problems == []
    assert found.worst_difference < 1e-5
    assert (found.changed_labels, found.other_tokens) == (0, 0)
    # Other kernels, as far as one machine has them: the graph as it is, without fused operators.
    session = UnfusedGraph(record.path / "model.onnx")
    other = check_session(read_reference(record.path), record.path, session)
    assert other.problems == []
    largest = max(record.parity["max_difference"], record.reference["max_difference"])
    expected = tolerances_of(precision, largest, record.reference["mean_difference"])
    assert {"tolerance": found.tolerance, "mean_tolerance": found.mean_tolerance} == expected
    if precision in INT8:
        assert found.tolerance >= 2 * largest > 1e-3
        assert found.mean_tolerance < record.reference["mean_difference"]
    else:
        assert found.tolerance == found.mean_tolerance == {"fp32": 1e-4, "fp16": 2e-2}[precision]


class Overflowing(OpRun):
    """A matrix product of 8-bit integers as processors without VNNI make it: pairs are added in 16 bits."""

    op_domain = ""
    overflows = True

    def _run(self, left, right, left_zero, right_zero=None):
        rows = left.reshape(-1, left.shape[-1]).astype(np.float64)
        columns = right.astype(np.float64)
        product = np.zeros((len(rows), columns.shape[1]))
        for place in range(0, rows.shape[1], 2):
            pair = rows[:, place : place + 2] @ columns[place : place + 2]
            product += pair.clip(-(2**15), 2**15 - 1) if self.overflows else pair
        product -= float(left_zero.reshape(-1)[0]) * columns.sum(axis=0)
        return (product.astype(np.int32).reshape(*left.shape[:-1], -1),)


class EvaluatedGraph:
    """ONNX's own evaluation of a graph in NumPy, in place of a session of ONNX Runtime."""

    def __init__(self, path, product):
        model = onnx.load(path)
        self.inputs = [entry.name for entry in model.graph.input]
        # The evaluation has no DequantizeLinear of opset 18; later ones are the same for what is used.
        model.opset_import[0].version = 21
        operator = type("MatMulInteger", (product,), {})
        self._evaluator = ReferenceEvaluator(model, new_ops=[operator])

    def run(self, feeds):
        return self._evaluator.run(None, feeds)[0]


def test_a_processor_whose_16_bit_sums_overflow_is_found(small_classifier_dir, critic_quotes, tmp_path):
    data = critic_quotes / "test.tsv"
    exact = type("Exact", (Overflowing,), {"overflows": False})
    for bits, product, differs in ((8, exact, []), (8, Overflowing, ["kernels"]), (7, Overflowing, [])):
        folder = tmp_path / f"{bits}"
        if not folder.exists():
            export(
                small_classifier_dir, folder, data, precision="int8", weight_bits=bits, parity_agreement=0.9
            )
        session = EvaluatedGraph(folder / "model.onnx", product)
        found = check_session(read_reference(folder), folder, session)
        assert found.differs == differs, (bits, found.summary)


def test_the_mean_of_few_texts_has_no_tolerance_of_its_own():
    assert tolerances_of("int8", 0.1, None) == {"tolerance": 0.2, "mean_tolerance": 0.2}
    assert tolerances_of("int8", 0.1, 0.03) == {"tolerance": 0.2, "mean_tolerance": 0.015}
    assert tolerances_of("int8-static", 0.001, 0.001) == {"tolerance": 0.01, "mean_tolerance": 0.005}
    assert tolerances_of("fp32", 0.0, 0.0) == {"tolerance": 1e-4, "mean_tolerance": 1e-4}


def test_bf16_runs_on_no_processor_and_has_none(half_as_wide_dir, critic_quotes, tmp_path):
    data = critic_quotes / "test.tsv"
    record = export(half_as_wide_dir, tmp_path / "a", data, precision="bf16", parity_agreement=0.8)
    assert record.reference is None
    assert not (record.path / REFERENCE).exists()


def test_a_regression_proves_itself(regression_dir, numbered_pairs, tmp_path):
    record = export(regression_dir, tmp_path / "artifact", numbered_pairs / "test.tsv")
    found = check_host(record.path)
    assert (found.problems, found.changed_labels) == ([], None)


def test_the_same_artifact_gives_the_same_bytes(small_pruned_dir, critic_quotes, tmp_path):
    contents = [
        (export(small_pruned_dir, tmp_path / name, critic_quotes / "test.tsv").path / REFERENCE).read_bytes()
        for name in "ab"
    ]
    assert contents[0] == contents[1]


def test_given_texts_take_the_place_of_made_ones(small_pruned_dir, critic_quotes, tmp_path):
    texts = [f"text number {place}" for place in range(40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    data = critic_quotes / "test.tsv"
    record = export(small_pruned_dir, tmp_path / "artifact", data, str(tmp_path / "texts.jsonl"))
    vectors = read_reference_json(record.path)["vectors"]
    assert [vector["text"] for vector in vectors] == texts[:MOST_GIVEN]
    assert record.reference["source"] == "given"
    assert check_host(record.path).problems == []


def test_a_recipe_gives_texts_too(small_pruned_dir, critic_quotes, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "another"}\n')
    test = str(critic_quotes / "test.tsv")
    recipe = Recipe(
        model="unused",
        data=DataConfig(test=test, calibration=test, reference=str(tmp_path / "texts.jsonl"), max_length=48),
        run=RunConfig(device="cpu", threads=1),
        export=ExportConfig(parity_examples=20),
    )
    shutil.copytree(small_pruned_dir, tmp_path / "pruned")
    context = Context(
        output=tmp_path, columns=recipe.data, run=recipe.run, progress=SilentProgress(), force=True
    )
    run_stage(Stage("export", (ARTIFACT,), (), {}), recipe, context)
    vectors = read_reference_json(tmp_path / ARTIFACT)["vectors"]
    assert [vector["text"] for vector in vectors] == ["one", "another"]


def test_given_pairs_are_pairs(regression_dir, numbered_pairs, tmp_path):
    data = numbered_pairs / "test.tsv"
    record = export(regression_dir, tmp_path / "artifact", data, str(data))
    vectors = read_reference_json(record.path)["vectors"]
    assert all(vector["pair"] and max(vector["segments"]) == 1 for vector in vectors)
    assert check_host(record.path).problems == []


def test_given_texts_that_are_not_there_are_named_before_any_work(small_pruned_dir, critic_quotes, tmp_path):
    with pytest.raises(UserError, match=r"nothing\.jsonl"):
        export(small_pruned_dir, tmp_path / "a", critic_quotes / "test.tsv", str(tmp_path / "nothing.jsonl"))
    assert not (tmp_path / "a").exists()


def test_long_texts_run_alone(small_classifier):
    vectors = [module.Vector("", None, [1] * length, [0] * length) for length in (3, 100, LONGEST_IN_BATCH)]
    assert module._places_of_batch(vectors) == [0, 2]
    assert module._places_of_batch(vectors[1:2]) == [0]


@pytest.mark.parametrize(
    ("shift", "says"),
    [(np.inf, "logits of a reference text are NaN or infinite"), (0.5, "differ from PyTorch's by")],
)
def test_logits_that_are_not_the_models_fail_the_export(
    small_pruned_dir, critic_quotes, tmp_path, monkeypatch, shift, says
):
    run = module.run_alone
    monkeypatch.setattr(module, "run_alone", lambda *arguments: run(*arguments) + shift)
    with pytest.raises(UserError, match=f"export failed: .*{says}"):
        export(small_pruned_dir, tmp_path / "a", critic_quotes / "test.tsv")
    assert not (tmp_path / "a").exists()


def test_a_graph_that_does_not_run_fails_the_export_in_a_line(
    small_pruned_dir, critic_quotes, tmp_path, monkeypatch
):
    def refused(directory, runtime):
        raise module.CheckError("model.onnx: cannot be loaded")

    monkeypatch.setattr(module, "open_session", refused)
    with pytest.raises(UserError, match=r"export failed: model\.onnx: cannot be loaded"):
        export(small_pruned_dir, tmp_path / "a", critic_quotes / "test.tsv")
