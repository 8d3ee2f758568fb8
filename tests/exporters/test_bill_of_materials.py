"""The bill of materials meets CycloneDX's own schema, and says what the manifest says."""

import copy
import json
import shutil
import uuid
from datetime import datetime

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cli import execute
from compressor.errors import UserError
from compressor.models.encoders.bert import BERT
from compressor.models.manifest import read_manifest
from compressor.system.files import MARKER, sha256_of
from exporters.bill_of_materials import BILL_OF_MATERIALS, bill_of_materials, write_bill_of_materials

DENSE = "d" * 64


@pytest.fixture
def manifest():
    """A manifest as the export writes it, by hand."""
    return {
        "format": "onnx",
        "opset": 18,
        "labels": ["fresh", "rotten"],
        "sparsity": 0.5,
        "parity": {
            "examples": 256,
            "max_difference": 1.5e-06,
            "label_agreement": 1.0,
            "edge_differences": {"1 x 1": 1e-07, "1 x 512": 2e-06},
            "tolerance": 1e-4,
            "data_fingerprint": "b" * 64,
        },
        "lineage": {
            "weights_sha256": "c" * 64,
            "masks_sha256": "e" * 64,
            "model": "../pruned",
            "data_fingerprint": "f" * 64,
            "dense_sha256": DENSE,
            "pruning": {"algorithm": "adaptive", "pattern": "2:4"},
            "options_sha256": "0" * 64,
            "seed": 7,
        },
        "seed": 3,
        "environment": {"packages": {"compress": "1.0", "torch": "2.13.0+cpu", "onnx": "1.23.2"}},
        "files": {
            "tokenizer.json": {"sha256": "2" * 64, "bytes": 20},
            "model.onnx": {"sha256": "1" * 64, "bytes": 10},
        },
    }


def problem_of(bom):
    """What CycloneDX's schema says against a bill of materials, or None."""
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom))


def properties_of(part):
    return {entry["name"].removeprefix("compress:"): entry["value"] for entry in part["properties"]}


def test_a_smaller_vocabulary_is_named(manifest):
    whole = bill_of_materials(manifest | {"vocabulary": None}, BERT)
    assert whole == bill_of_materials(manifest, BERT)
    vocabulary = {
        "pieces": {"before": 30522, "after": 8004},
        "coverage": 0.999,
        "texts": 500,
        "data_fingerprint": "a" * 64,
        "examples": 256,
        "other_tokens": 0.125,
    }
    bom = bill_of_materials(manifest | {"vocabulary": vocabulary}, BERT)
    assert problem_of(bom) is None
    model = bom["metadata"]["component"]
    added = properties_of(model).items() - properties_of(whole["metadata"]["component"]).items()
    assert dict(added) == {
        "vocabulary_pieces": "8004",
        "vocabulary_pieces_of_the_model": "30522",
        "vocabulary_coverage": "0.999",
        "vocabulary_other_tokens": "0.125",
    }
    dataset = model["modelCard"]["modelParameters"]["datasets"][-1]
    assert dataset["name"] == "Texts whose pieces its vocabulary has"
    assert properties_of(dataset["contents"]) == {"data_fingerprint": "a" * 64}
    limitation = model["modelCard"]["considerations"]["technicalLimitations"][-1]
    assert "has 8004 of the model's 30522 pieces, those that 500 texts need" in limitation
    assert "12.5% of 256 texts" in limitation


@pytest.mark.parametrize("timestamp", [None, "2026-01-02T03:04:05+00:00"])
def test_meets_the_schema(manifest, timestamp):
    assert problem_of(bill_of_materials(manifest, BERT, timestamp)) is None


def test_the_exported_artifacts_meets_the_schema_and_is_that_of_its_manifest(small_artifact_dir):
    manifest = read_manifest(small_artifact_dir)
    written = json.loads((small_artifact_dir / BILL_OF_MATERIALS).read_text(encoding="utf-8"))
    assert problem_of(written) is None
    assert written == bill_of_materials(manifest, BERT)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ([], "specVersion", 1.6),
        ([], "serialNumber", "none"),
        ([], "unknown", 1),
        (["metadata", "component"], "type", "model"),
        (["metadata", "component", "modelCard", "modelParameters", "approach"], "type", "guessing"),
        (["metadata", "component", "modelCard", "modelParameters"], "labels", ["a"]),
        (["metadata", "component", "modelCard", "modelParameters", "datasets", 0], "type", "texts"),
        (["metadata", "component", "modelCard", "modelParameters", "inputs", 0], "format", 3),
        (
            ["metadata", "component", "modelCard", "quantitativeAnalysis", "performanceMetrics", 0],
            "value",
            0.5,
        ),
        (["metadata", "component", "modelCard", "considerations"], "useCases", "to classify"),
        (["metadata", "component", "pedigree", "ancestors", 1, "hashes", 0], "content", "xyz"),
        (["metadata", "component", "properties", 0], "value", 18),
        (["metadata", "tools", "components", 0], "name", None),
        (["components", 0, "hashes", 0], "alg", "sha256"),
        (["components", 0], "sha256", "1" * 64),
        (["dependencies", 0], "ref", None),
    ],
)
def test_the_schema_finds_a_wrong_field(manifest, place, key, value):
    bom = bill_of_materials(manifest, BERT)
    part = bom
    for step in place:
        part = part[step]
    part[key] = value
    assert problem_of(bom) is not None


def test_lists_every_other_file_with_its_checksum(small_artifact_dir):
    bom = json.loads((small_artifact_dir / BILL_OF_MATERIALS).read_text(encoding="utf-8"))
    assert {component["type"] for component in bom["components"]} == {"file"}
    listed = {component["name"]: component["hashes"] for component in bom["components"]}
    expected = {
        path.name: [{"alg": "SHA-256", "content": sha256_of(path)}]
        for path in small_artifact_dir.iterdir()
        if path.name not in (BILL_OF_MATERIALS, "manifest.json", MARKER)
    }
    assert listed == expected
    assert bom["metadata"]["component"]["hashes"] == expected["model.onnx"]
    [dependency] = bom["dependencies"]
    assert dependency["ref"] == bom["metadata"]["component"]["bom-ref"]
    assert dependency["dependsOn"] == [component["bom-ref"] for component in bom["components"]]


def test_the_manifest_lists_the_bill_and_finds_it_changed(small_artifact_dir, tmp_path, capsys):
    copied = shutil.copytree(small_artifact_dir, tmp_path / "copy")
    assert execute(["verify", str(copied)]) == 0
    path = copied / BILL_OF_MATERIALS
    path.write_text(path.read_text(encoding="utf-8").replace("supervised", "unsupervised"), encoding="utf-8")
    assert execute(["verify", str(copied)]) == 1
    assert f"{BILL_OF_MATERIALS}: is not the file that was exported" in capsys.readouterr().out


def test_pedigree_names_the_exported_and_the_dense_model(manifest):
    ancestors = bill_of_materials(manifest, BERT)["metadata"]["component"]["pedigree"]["ancestors"]
    found = [(ancestor["name"], ancestor["hashes"][0]["content"]) for ancestor in ancestors]
    assert found == [("pruned", "c" * 64), ("dense", DENSE)]


def test_the_card_says_what_the_manifest_says(manifest):
    component = bill_of_materials(manifest, BERT)["metadata"]["component"]
    assert component["name"] == "pruned"
    properties = properties_of(component)
    assert properties["algorithm"] == "adaptive"
    assert properties["pattern"] == "2:4"
    assert properties["masks_sha256"] == "e" * 64
    assert properties["options_sha256"] == "0" * 64
    assert (properties["seed"], properties["export_seed"]) == ("7", "3")
    card = component["modelCard"]
    datasets = card["modelParameters"]["datasets"]
    found = [properties_of(data["contents"])["data_fingerprint"] for data in datasets]
    assert found == ["f" * 64, "b" * 64]
    assert card["modelParameters"]["outputs"] == [{"format": "logits: float32 (batch, 2)"}]
    metrics = {
        (metric["type"], metric["slice"]): float(metric["value"])
        for metric in card["quantitativeAnalysis"]["performanceMetrics"]
    }
    difference, texts = "largest_logit_difference_from_pytorch", "256 texts of the proof of parity"
    assert metrics == {
        ("sparsity", "encoder matrices"): 0.5,
        ("label_agreement_with_pytorch", texts): 1.0,
        (difference, texts): 1.5e-06,
        (difference, "random tokens of shape 1 x 1"): 1e-07,
        (difference, "random tokens of shape 1 x 512"): 2e-06,
    }


def test_accuracy_and_precision_are_told_where_the_manifest_has_them(manifest):
    manifest["precision"] = "int8"
    manifest["parity"] |= {"accuracy": 0.75, "reference_accuracy": 0.8, "tolerance": None}
    bom = bill_of_materials(manifest, BERT)
    assert problem_of(bom) is None
    component = bom["metadata"]["component"]
    assert properties_of(component)["precision"] == "int8"
    metrics = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    values = {metric["type"]: metric["value"] for metric in metrics}
    assert (values["accuracy"], values["accuracy_in_pytorch"]) == ("0.75", "0.8")
    [limitation] = component["modelCard"]["considerations"]["technicalLimitations"]
    assert "held to PyTorch's labels alone" in limitation


def test_tools_have_their_versions(manifest):
    tools = bill_of_materials(manifest, BERT)["metadata"]["tools"]["components"]
    assert [(tool["type"], tool["name"], tool["version"], tool.get("purl")) for tool in tools] == [
        ("application", "compress", "1.0", None),
        ("library", "onnx", "1.23.2", "pkg:pypi/onnx@1.23.2"),
        ("library", "torch", "2.13.0+cpu", "pkg:pypi/torch@2.13.0%2Bcpu"),
    ]


@pytest.mark.parametrize("model", ["..", "textattack/bert-base-uncased-SST-2"])
def test_a_model_of_others_without_record_has_a_bill_as_well(manifest, model):
    manifest["lineage"] = {"weights_sha256": None, "masks_sha256": "e" * 64, "model": model}
    bom = bill_of_materials(manifest, BERT)
    assert problem_of(bom) is None
    [ancestor] = bom["metadata"]["component"]["pedigree"]["ancestors"]
    assert ancestor["name"] == ("classifier" if model == ".." else "bert-base-uncased-SST-2")
    assert "hashes" not in ancestor


def test_same_manifest_same_bill_whatever_the_order(manifest):
    other = copy.deepcopy(manifest)
    other["files"] = dict(reversed(other["files"].items()))
    packages = other["environment"]["packages"]
    other["environment"]["packages"] = dict(reversed(packages.items()))
    first, second = bill_of_materials(manifest, BERT), bill_of_materials(other, BERT)
    assert json.dumps(first) == json.dumps(second)
    assert uuid.UUID(first["serialNumber"]).version == 5
    other["files"]["model.onnx"]["sha256"] = "9" * 64
    assert bill_of_materials(other, BERT)["serialNumber"] != first["serialNumber"]


def test_the_time_is_that_of_the_environment_or_none(manifest, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    write_bill_of_materials(tmp_path, manifest, BERT)
    plain = (tmp_path / BILL_OF_MATERIALS).read_bytes()
    assert "timestamp" not in json.loads(plain)["metadata"]
    write_bill_of_materials(tmp_path, manifest, BERT)
    assert (tmp_path / BILL_OF_MATERIALS).read_bytes() == plain
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    write_bill_of_materials(tmp_path, manifest, BERT)
    dated = json.loads((tmp_path / BILL_OF_MATERIALS).read_text())
    assert problem_of(dated) is None
    assert datetime.fromisoformat(dated["metadata"]["timestamp"]).timestamp() == 86400
    assert dated["serialNumber"] != json.loads(plain)["serialNumber"]


@pytest.mark.parametrize("epoch", ["", "today", "1.5", "9" * 30])
def test_a_time_that_is_none_is_an_error(manifest, tmp_path, monkeypatch, epoch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(
        UserError, match=r"SOURCE_DATE_EPOCH=.*: is not a time in seconds since 1970; unset it"
    ):
        write_bill_of_materials(tmp_path, manifest, BERT)
    assert not any(tmp_path.iterdir())
