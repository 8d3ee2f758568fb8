"""The one place that reads checkpoints: never their own code, and no waiting for a hub that is not there."""

import contextlib
import io
import json
import re
import shutil
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from project import ROOT
from tiny_checkpoints import edit_json, make_checkpoint

from compressor.attacks.inventory import examine, inventory
from compressor.attacks.resources import load_masked_language_model
from compressor.data.texts import load_text_data
from compressor.errors import UserError
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.models.classifier import (
    check_checkpoint,
    load_classifier,
    load_for_finetuning,
    load_tokenizer,
    model_content,
    model_task,
)
from compressor.models.loading import read_config
from compressor.options import ColumnsConfig, ResourcesConfig
from compressor.system import hub
from compressor.system.hub import hub_problem, is_hub_id, split_revision

FOLDERS = ("compressor", "exporters", "benchmarks", "deploy")


def test_no_other_module_loads_what_transformers_can_load():
    calls = re.compile(r"\.from_pretrained\(|\.get_config_dict\(|torch\.load\(|hf_hub_download\(")
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        # What an error advises people to do is no call.
        if any(
            calls.search(line)
            for line in path.read_text().splitlines()
            if '"M.' not in line and 'f"' not in line
        )
    }
    assert found - {"compressor/models/encoders/keys.py"} == {"compressor/models/loading.py"}


def sentence_encoder(source):
    import torch

    return SentenceEncoder(Path(source), torch.device("cpu"))


LOADERS = {
    "classifier": load_classifier,
    "for fine-tuning": lambda source: load_for_finetuning(source, ["a", "b"], 0),
    "checked": check_checkpoint,
    "task": model_task,
    "configuration": read_config,
    "masked language model": load_masked_language_model,
    "sentence encoder": sentence_encoder,
}


@pytest.mark.parametrize("model_type", ["bert", "evil"])
@pytest.mark.parametrize("name", LOADERS)
def test_a_checkpoints_own_code_never_runs(tmp_path, monkeypatch, capsys, name, model_type):
    folder = make_checkpoint(tmp_path / "model")
    trace = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass C: pass\n")
    kinds = ("AutoConfig", "AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification")
    edit_json(folder / "config.json", model_type=model_type, auto_map=dict.fromkeys(kinds, "evil.C"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with pytest.raises(UserError, match="auto_map: the model is defined by code of its own"):
        LOADERS[name](str(folder))
    assert not trace.exists()
    assert "[y/N]" not in capsys.readouterr().out


@pytest.mark.parametrize("load", [load_tokenizer, load_classifier, sentence_encoder])
@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "EvilTokenizer"])
def test_a_tokenizers_own_code_never_runs(tmp_path, monkeypatch, load, tokenizer_class):
    folder = make_checkpoint(tmp_path / "model")
    trace = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass C: pass\n")
    edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class=tokenizer_class,
        auto_map={"AutoTokenizer": ["evil.C", "evil.C"]},
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with pytest.raises(UserError, match=r"tokenizer_config\.json: auto_map: .*code of its own"):
        load(str(folder))
    assert not trace.exists()


# resources --------------------------------------------------------------------------------------


def test_a_sentence_encoder_without_weights_is_listed_as_missing(tmp_path):
    folder = make_checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    for place in (folder, tmp_path / "nowhere"):
        found = {
            entry.name: examine(entry).state
            for entry in inventory(ResourcesConfig(sentence_encoder=str(place)))
        }
        assert (found["sentence encoder"], found["word vectors"]) == ("missing", "missing")
        with pytest.raises(UserError, match="is no directory of a BERT sentence encoder"):
            sentence_encoder(place)


def test_a_sentence_encoder_of_few_positions_cuts_its_texts(tmp_path):
    encoder = sentence_encoder(make_checkpoint(tmp_path / "model"))
    assert encoder.encode(["a fine film " * 30]).shape == (1, 8)


def test_a_masked_language_model_needs_a_mask(tmp_path):
    folder = make_checkpoint(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", mask_token=None, added_tokens_decoder=...)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="the tokenizer has no mask_token"):
        load_masked_language_model(str(folder))


# the hub ----------------------------------------------------------------------------------------


@pytest.fixture
def silent_hub(monkeypatch):
    """In place of the hub an endpoint that takes connections and never answers."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub, "HUB_SECONDS", 0.5)
        for name in ("HTTP_PROXY", "http_proxy", "HF_HUB_ETAG_TIMEOUT"):
            monkeypatch.delenv(name, raising=False)
        hub._probe.cache_clear()
        yield server
    hub._probe.cache_clear()


@pytest.fixture
def answering():
    """A function: the port of a server that answers every question with a status."""
    with contextlib.ExitStack() as stack:

        def start(status: int) -> int:
            def do_HEAD(self):
                self.send_response(status)
                self.end_headers()

            handler = type("Handler", (BaseHTTPRequestHandler,), {"do_HEAD": do_HEAD, "log_message": print})
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return server.server_port

        yield start


def test_a_hub_that_does_not_answer_is_found_out_once(silent_hub):
    began = time.monotonic()
    problem = hub_problem()
    assert problem.endswith("does not answer within 0.5 seconds")
    assert hub_problem() == problem
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://127.0.0.1:{closed}", r"does not answer \(Connection refused\)"),
        # What the system's look-up says differs.
        ("http://hub.invalid", r"does not answer (\(.+\)|within .+ seconds)"),
        ("http://127.0.0.1:{broken}", "answers with HTTP 503"),
        ("http://127.0.0.1:{working}", None),
    ],
)
def test_why_the_hub_cannot_be_asked(silent_hub, answering, monkeypatch, endpoint, reason):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    url = endpoint.format(closed=closed, broken=answering(503), working=answering(404))
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(hub, "HUB_SECONDS", 5)
    began = time.monotonic()
    problem = hub_problem()
    assert time.monotonic() - began < 10
    assert problem is None if reason is None else re.fullmatch(f"{re.escape(url)} {reason}", problem)


def test_a_hub_that_is_turned_off_is_not_asked(silent_hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_problem() == "HF_HUB_OFFLINE is set"


@pytest.mark.parametrize(
    ("source", "parts", "valid"),
    [
        ("bert-base-uncased", ("bert-base-uncased", None), True),
        ("some/model@v1.0", ("some/model", "v1.0"), True),
        ("some/model@refs/pr/1", ("some/model", "refs/pr/1"), True),
        ("some/model@", ("some/model", ""), False),
        ("some//model@v1", ("some//model", "v1"), False),
    ],
)
def test_an_id_may_have_a_revision(source, parts, valid):
    assert split_revision(source) == parts
    assert is_hub_id(source) == valid


@pytest.mark.parametrize("load", [load_classifier, load_masked_language_model, model_content])
def test_a_model_that_is_not_cached_is_told_in_one_line(silent_hub, capfd, load):
    with pytest.raises(
        UserError, match=r"some/model: .*it is not in the hub's cache, and .* does not answer"
    ) as caught:
        load("some/model")
    assert "\n" not in str(caught.value)
    assert "Retrying" not in "".join(capfd.readouterr())


def test_data_that_are_not_cached_are_told_in_one_line(silent_hub, capfd):
    with pytest.raises(
        UserError, match="some/data: no such file, and it could not be loaded from the hub"
    ) as caught:
        load_text_data("some/data", ColumnsConfig(), "test")
    assert "\n" not in str(caught.value)
    assert "Retrying" not in "".join(capfd.readouterr())


def test_a_cached_model_is_loaded_without_the_hub(silent_hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    snapshot = cache / "models--some--model" / "snapshots" / ("a" * 40)
    shutil.copytree(make_checkpoint(tmp_path / "model"), snapshot)
    (cache / "models--some--model" / "refs").mkdir()
    (cache / "models--some--model" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    # Version 4 keeps a copy of it.
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(cache), raising=False)
    assert load_classifier("some/model").label_names == ["neg", "pos"]
    assert model_content("some/model") == f"commit {'a' * 40}"
    (snapshot / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(UserError, match=r"adapter_config\.json: is an adapter"):
        load_classifier("some/model")
