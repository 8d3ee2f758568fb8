"""The server of an artifact, as it runs in its image: without PyTorch, and with PyTorch's answers."""

import asyncio
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
import torch
from damaged_answers import REFERENCE, change_answers, change_reference, change_weights, switch_case
from project import ROOT

from compressor.models.batching import encode_texts, pad
from compressor.models.classifier import load_classifier
from compressor.models.manifest import MANIFEST, write_manifest
from compressor.models.predictors import TorchPredictor

SERVE = ROOT / "deploy" / "docker" / "serve.py"
# What the artifact was exported with; the server finds it in the manifest.
MAX_TOKENS = 48
MAX_TEXTS = 40
ABSENT = ("torch", "transformers", "onnx", "huggingface_hub", "compressor", "exporters", "datasets")
# What the image lacks cannot be imported.
START = (
    "import runpy, sys\n"
    f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
    f"sys.argv[0], sys.path[0] = {str(SERVE)!r}, {str(SERVE.parent)!r}\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


@pytest.fixture(scope="module")
def serve():
    """The server's module."""
    spec = importlib.util.spec_from_file_location("serve", SERVE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "serve", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def server(small_artifact_dir, tmp_path_factory):
    """The address of a server in a process of its own; told to stop, it ends well."""
    log = tmp_path_factory.mktemp("server") / "log"
    arguments = ["--artifact", small_artifact_dir, "--port", 0]
    limits = ["--max-texts", MAX_TEXTS, "--max-characters", 2000, "--max-body-bytes", 50_000]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, arguments + limits)], stdout=stream, stderr=stream
        )
    try:
        deadline = time.monotonic() + 120
        while "running on " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield log.read_text().split("running on ")[1].split()[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (0, -signal.SIGTERM)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()


def call(address, path="/predict", body=None):
    """Status and answer; a body that is not bytes is sent as JSON, none asks without one."""
    if body is None:
        answer = httpx.get(address + path, timeout=60)
    else:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = httpx.post(address + path, content=content, timeout=60)
    return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def expected(small_pruned_dir):
    """A function that gives PyTorch's probabilities and labels."""
    predictor = TorchPredictor(load_classifier(str(small_pruned_dir)))

    def probabilities(texts, pairs=None):
        encoded = encode_texts(predictor.tokenizer, texts, pairs, MAX_TOKENS)
        logits = predictor.logits(pad(encoded, predictor.tokenizer.pad_token_id))
        return torch.from_numpy(logits).double().softmax(1).numpy(), predictor.label_names

    return probabilities


def check_answers(answer, expected):
    probabilities, labels = expected
    assert len(answer["predictions"]) == len(probabilities)
    for found, row in zip(answer["predictions"], probabilities, strict=True):
        assert list(found["scores"]) == labels
        assert np.abs(np.array(list(found["scores"].values())) - row).max() < 1e-4
        assert found["label"] == labels[row.argmax()]
        assert found["score"] == max(found["scores"].values())


def test_answers_are_pytorchs_on_a_ragged_batch(server, expected, test_quotes):
    texts = [*test_quotes.texts[: MAX_TEXTS - 3], "", "naïve 😀 \u0000 text", "a long one " * 100]
    status, answer = call(server, body={"texts": texts})
    assert status == 200
    check_answers(answer, expected(texts))
    assert {found["label"] for found in answer["predictions"]} == {"fresh", "rotten"}


def test_pairs_are_encoded_as_pytorch_has_them(server, expected, test_quotes):
    texts, pairs = test_quotes.texts[:8], test_quotes.texts[8:16]
    status, answer = call(server, body={"texts": texts, "pairs": pairs})
    assert status == 200
    check_answers(answer, expected(texts, pairs))


def test_health_names_labels_and_graph(server, small_artifact_dir):
    manifest = json.loads((small_artifact_dir / "manifest.json").read_text())
    sha256 = manifest["files"]["model.onnx"]["sha256"]
    expected = {"status": "ok", "labels": ["fresh", "rotten"], "model_sha256": sha256}
    assert call(server, "/health") == (200, expected)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/predict", b"no json", 400, "Invalid JSON"),
        ("/predict", b"\xff", 400, "Invalid JSON"),
        ("/predict", b'{"texts": ["\\ud800"]}', 400, "Invalid JSON"),
        ("/predict", {}, 400, "texts: Field required"),
        ("/predict", {"texts": []}, 400, "texts: List should have at least 1 item"),
        ("/predict", {"texts": "a film"}, 400, "texts: Input should be a valid"),
        ("/predict", {"texts": ["a", 3]}, 400, "texts.1: Input should be a valid string"),
        ("/predict", {"texts": ["a"], "text": "a"}, 400, "text: Extra inputs are not permitted"),
        ("/predict", {"texts": ["a", "b"], "pairs": ["c"]}, 400, "pairs: 1 of them, but 2 texts"),
        ("/predict", {"texts": ["a"] * (MAX_TEXTS + 1)}, 413, "at most 40"),
        ("/predict", {"texts": ["a", "b" * 2001]}, 413, "at most 2000"),
        ("/predict", {"texts": ["a"], "pairs": ["b" * 2001]}, 413, "at most 2000"),
        ("/predict", b" " * 50_001, 413, "longer than 50000 bytes"),
        ("/predict", None, 405, "Method Not Allowed"),
        ("/health", b"", 405, "Method Not Allowed"),
        ("/metrics", None, 404, "Not Found"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_in_one_line(server, path, body, status, says):
    found, answer = call(server, path, body)
    assert found == status
    assert says in answer["error"]
    assert "\n" not in answer["error"]
    assert call(server, body={"texts": ["a"]})[0] == 200


class Waiting:
    """In the place of a classifier: answers once it is let."""

    labels = ("yes",)
    sha256 = "0" * 64

    def __init__(self):
        self.asked, self.let = threading.Event(), threading.Event()

    def predict(self, texts, pairs):
        self.asked.set()
        assert self.let.wait(timeout=60)
        return [{"label": "yes"} for _ in texts]


def test_more_requests_than_may_wait_are_sent_away(serve):
    classifier = Waiting()
    app = serve.make_app(classifier, serve.Settings(max_waiting=0))

    async def requests():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            first = asyncio.create_task(client.post("/predict", json={"texts": ["a"]}))
            assert await asyncio.to_thread(classifier.asked.wait, 60)
            second = await client.post("/predict", json={"texts": ["b"]})
            health = await client.get("/health")
            classifier.let.set()
            return await first, second, health

    first, second, health = asyncio.run(requests())
    assert (second.status_code, second.headers["retry-after"]) == (503, "1")
    assert "try again" in second.json()["error"]
    assert health.status_code == 200
    assert first.json() == {"predictions": [{"label": "yes"}]}


@pytest.fixture
def start(serve, small_artifact_dir, tmp_path, monkeypatch, capsys):
    """A function that changes a copy of the artifact, starts the server and returns its one line."""

    def run(change, *arguments):
        copy = shutil.copytree(small_artifact_dir, tmp_path / "artifact")
        change(copy)
        monkeypatch.setattr(sys, "argv", ["serve.py", "--artifact", str(copy), *arguments])
        monkeypatch.setattr(serve.uvicorn, "run", lambda *_, **__: pytest.fail("it listens"))
        assert serve.main() == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


def change_manifest(change):
    def run(artifact):
        manifest = json.loads((artifact / "manifest.json").read_text())
        change(manifest)
        (artifact / "manifest.json").write_text(json.dumps(manifest))

    return run


def change_byte(name):
    def run(artifact):
        content = bytearray((artifact / name).read_bytes())
        content[len(content) // 2] ^= 1
        (artifact / name).write_bytes(content)

    return run


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_byte("model.onnx"), "model.onnx: is not the file that was exported"),
        (change_byte("tokenizer.json"), "tokenizer.json: is not the file that was exported"),
        (lambda artifact: (artifact / "config.json").unlink(), "config.json: is missing"),
        (lambda artifact: (artifact / "manifest.json").unlink(), "manifest.json: cannot be read"),
        (
            lambda artifact: (artifact / "manifest.json").write_text("[]"),
            "manifest.json: holds no JSON object",
        ),
        (change_manifest(lambda m: m.pop("files")), "lists no files"),
        (change_manifest(lambda m: m["files"].pop("model.onnx")), "does not list model.onnx"),
        (change_manifest(lambda m: m["files"].update({"../out": {}})), "'../out' leads out of the artifact"),
        (change_manifest(lambda m: m["labels"].append("third")), "the graph has 2 answers, not 3"),
    ],
)
def test_an_artifact_that_is_not_what_was_exported_is_not_served(start, change, says):
    line = start(change)
    assert line.startswith("error: ")
    assert says in line


def sealed(change):
    """A change to an artifact whose manifest fits it again."""

    def run(artifact):
        change(artifact)
        facts = json.loads((artifact / MANIFEST).read_text())
        del facts["files"]
        (artifact / MANIFEST).unlink()
        write_manifest(artifact, facts)

    return run


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_weights, "the weights differ: logits differ from the recorded ones"),
        (switch_case, "the tokenizer differs: other token ids than recorded"),
        (lambda artifact: change_answers(artifact, 0.5), "the kernels differ: logits differ"),
        (lambda artifact: (artifact / REFERENCE).write_text("{}"), f"{REFERENCE}: schema_version is None"),
    ],
    ids=["weights", "tokenizer", "kernels", "broken"],
)
def test_other_answers_than_were_recorded_are_not_served(start, change, says):
    assert says in start(sealed(change))


def test_the_answers_are_checked_at_the_start_also_where_texts_are_cut_earlier(
    serve, small_artifact_dir, capsys
):
    serve.Classifier(serve.Settings(artifact=small_artifact_dir, max_tokens=8))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{small_artifact_dir}: ")
    assert "0 labels differ" in line


def test_an_artifact_for_openvino_is_served_without_onnx_runtime(
    serve, openvino_artifact_dir, expected, test_quotes, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    classifier = serve.Classifier(serve.Settings(artifact=openvino_artifact_dir))
    texts = [*test_quotes.texts[:20], "", "a long one " * 100]
    check_answers({"predictions": classifier.predict(texts, None)}, expected(texts))
    assert "0 labels differ" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda artifact: (artifact / "model.xml").unlink(), "does not list model.xml, which is needed"),
        (lambda artifact: (artifact / "model.bin").unlink(), "does not list model.bin, which is needed"),
        (
            lambda artifact: change_reference(artifact, runtime="onnxruntime"),
            "runtime is 'onnxruntime', and manifest.json has 'openvino'; export it again",
        ),
    ],
    ids=["graph", "weights", "reference"],
)
def test_an_artifact_for_openvino_that_lacks_a_part_is_not_served(
    change, says, serve, openvino_artifact_dir, tmp_path
):
    copy = shutil.copytree(openvino_artifact_dir, tmp_path / "artifact")
    sealed(change)(copy)
    with pytest.raises(serve.StartError, match=re.escape(says)):
        serve.Classifier(serve.Settings(artifact=copy))


def test_a_runtime_of_another_package_is_not_served(start):
    line = start(change_manifest(lambda manifest: manifest.update(runtime="other")))
    assert line.endswith("runtime is 'other', and only onnxruntime and openvino are served")


def test_an_artifact_from_before_is_served_with_a_warning(serve, small_artifact_dir, tmp_path, capsys):
    copy = shutil.copytree(small_artifact_dir, tmp_path / "artifact")
    sealed(lambda artifact: (artifact / REFERENCE).unlink())(copy)
    serve.Classifier(serve.Settings(artifact=copy))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: {copy}: has no {REFERENCE}, so its answers on this host are not checked"
    )


def test_a_bad_option_is_named(start):
    assert start(lambda _: None, "--threads", "0").startswith("error: --threads: ")


def test_an_unknown_option_is_refused(serve, capsys):
    with pytest.raises(SystemExit) as stop:
        serve.read_settings(["--thread", "2"])
    assert stop.value.code == 2
    assert "--thread" in capsys.readouterr().err


def test_options_reach_the_settings_and_the_rest_has_its_default(serve):
    settings = serve.read_settings(["--threads", "3", "--max-tokens", "64"])
    assert settings == serve.Settings(threads=3, max_tokens=64)
