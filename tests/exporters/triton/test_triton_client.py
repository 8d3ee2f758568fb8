"""The client of a model repository against a server."""

import ast
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openvino
import pytest
import tritonclient.http
from tokenizers import Tokenizer
from triton_server import OPTIONS, Server, read_config

from compressor.models.batching import encode_texts, pad
from compressor.models.classifier import load_classifier
from compressor.models.predictors import TorchPredictor, predict
from exporters.triton import client as triton_client


@contextmanager
def running(server):
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(triton_config, triton_session):
    with running(Server(triton_config, triton_session)) as server:
        yield server


def run_client(folder, *arguments):
    return subprocess.run(
        [sys.executable, folder / "client.py", *arguments], cwd=folder, capture_output=True, text=True
    )


def test_the_client_stands_alone():
    tree = ast.parse(Path(triton_client.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    outside = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert outside == {"numpy", "tokenizers", "tritonclient"}


class CompiledModel:
    """The graph of a repository in OpenVINO, called as ONNX Runtime's session is."""

    def __init__(self, path):
        self._model = openvino.Core().compile_model(path, "CPU")

    def run(self, names, feeds):
        return [self._model(feeds)[name] for name in names]


def test_the_client_classifies_with_openvino(openvino_repository, small_pruned_dir, test_quotes):
    folder = openvino_repository / "models" / "classifier"
    session = CompiledModel(folder / "1" / "model.xml")
    data = test_quotes.select(range(45))
    expected = predict(TorchPredictor(load_classifier(str(small_pruned_dir))), data, OPTIONS["max_length"])
    tokenizer = Tokenizer.from_file(str(openvino_repository / "client/tokenizer.json"))
    with (
        running(Server(read_config(folder), session)) as server,
        tritonclient.http.InferenceServerClient(server.url) as client,
    ):
        found = triton_client.logits(client, "classifier", tokenizer, data.texts)
    # Without options, OpenVINO computes in bfloat16 where the processor has it.
    assert np.abs(found - expected).max() <= 5e-2
    assert [texts for texts, _ in server.shapes] == [32, 13]


@pytest.mark.parametrize("paired", [False, True])
def test_the_client_encodes_as_the_model_was_trained(paired, triton_repository, small_pruned_dir, quotes):
    tokenizer = Tokenizer.from_file(str(triton_repository / "client/tokenizer.json"))
    texts = [*quotes.texts[:20], "long " * 100, "", "naïve 映画"]
    pairs = [*quotes.texts[20:40], "pair " * 60, "b", ""] if paired else None
    given = list(zip(texts, pairs, strict=True)) if pairs else texts
    classifier = load_classifier(str(small_pruned_dir))
    expected = pad(
        encode_texts(classifier.tokenizer, texts, pairs, OPTIONS["max_length"]),
        classifier.tokenizer.pad_token_id,
    )
    found = triton_client.encode(tokenizer, given)
    assert found["input_ids"].shape == (23, 48)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_the_client_classifies_as_pytorch_does(server, triton_repository, small_pruned_dir, test_quotes):
    data = test_quotes.select(range(45))
    expected = predict(TorchPredictor(load_classifier(str(small_pruned_dir))), data, OPTIONS["max_length"])
    tokenizer = Tokenizer.from_file(str(triton_repository / "client/tokenizer.json"))
    with tritonclient.http.InferenceServerClient(server.url) as client:
        found = triton_client.logits(client, "critic-2_b", tokenizer, data.texts)
    assert np.abs(found - expected).max() <= 1e-4
    assert [texts for texts, _ in server.shapes] == [8, 8, 8, 8, 8, 5]
    assert {length for _, length in server.shapes} <= {16, 32, 48}


def test_the_client_prints_label_score_and_text(
    server, triton_repository, small_pruned_dir, quotes, tmp_path
):
    folder = shutil.copytree(triton_repository / "client", tmp_path / "elsewhere")
    texts = [text for text in quotes.texts if not text.startswith("-")][:3]
    data = quotes.select([quotes.texts.index(text) for text in texts])
    rows = predict(TorchPredictor(load_classifier(str(small_pruned_dir))), data, OPTIONS["max_length"])
    finished = run_client(folder, "--url", f"http://{server.url}", "--model", "critic-2_b", *texts)
    assert finished.returncode == 0, finished.stderr
    lines = [line.split("\t") for line in finished.stdout.splitlines()]
    assert [line[2] for line in lines] == texts
    assert [line[0] for line in lines] == [["fresh", "rotten"][row.argmax()] for row in rows]
    scores = [float(np.exp(row).max() / np.exp(row).sum()) for row in rows]
    assert [float(line[1]) for line in lines] == pytest.approx(scores, abs=2e-4)


def test_what_the_server_refuses_is_one_line(server, triton_repository):
    finished = run_client(triton_repository / "client", "--url", server.url, "--model", "other", "a film")
    assert finished.returncode == 1
    assert finished.stderr == f"{server.url}: Request for unknown model\n"


def test_no_server_is_one_line(triton_repository):
    finished = run_client(
        triton_repository / "client", "--url", "127.0.0.1:9", "--model", "critic-2_b", "a film"
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith("127.0.0.1:9: no Triton server answers: ")
    assert finished.stderr.count("\n") == 1
    assert finished.stdout == ""


def test_pairs_need_as_many_texts(triton_repository):
    finished = run_client(triton_repository / "client", "a", "b", "--pairs", "c", "--model", "critic-2_b")
    assert finished.returncode == 2
    assert "--pairs takes as many texts" in finished.stderr
