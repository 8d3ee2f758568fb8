"""Whoever loads an artifact cuts, pads and encodes as its proof did, by what is in the artifact alone."""

import asyncio
import contextlib
import importlib.util
import io
import json
import re
import shutil
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
import torch
import tritonclient.http
from needs import NEEDS_OPTIMUM
from project import ROOT
from scipy.special import softmax
from tokenizers import Tokenizer, normalizers
from triton_server import Server, read_config

from cli import execute
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models import preprocessing
from compressor.models.batching import encode_texts
from compressor.models.classifier import Classifier, load_classifier, load_tokenizer, save_classifier
from compressor.models.encoders.inputs import INPUTS
from compressor.models.manifest import MANIFEST, artifact_problems, read_manifest, write_manifest
from compressor.models.predictors import TorchPredictor, predict
from compressor.models.preprocessing import prove_preprocessing, read_preprocessing, write_tokenizer
from compressor.options import ColumnsConfig, ExportConfig, RunConfig, TritonConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters import stage as artifact_stage
from exporters.stage import export_directory
from exporters.triton import client as triton_client
from exporters.triton.repository import write_repository

LENGTH = 16
WORDS = ["the", "film", "was", "good", "bad", "plot", "and", "dull", "acting", "of", "great", "charm", "à"]
LETTERS = [chr(code) for code in range(33, 127)]
PIECES = [f"##{letter}" for letter in LETTERS if letter.isalnum()]
TEXTS = [
    *("The film was good " * (n % 13 + 1) + "BAD plot, dull acting " * (n % 7) + str(n) for n in range(24)),
    "",
    "dull " * 300 + "great charm",
    "great charm " + "dull " * 300,
    "good [SEP] bad [PAD] [CLS] " * 9 + "charm",
    "GREAT naïve ﬁlm — à la ＦＩＬＭ",
]  # fmt: skip
PAIRS = ["charm " * (1 + n % 11) + "of a plot " * (n % 23) for n in range(len(TEXTS))]


def make_tokenizer(folder, *, lower=True, tokens=(), normalize=False, kind="BertTokenizerFast", **settings):
    """A tokenizer of a checkpoint; `settings` are keys of its tokenizer_config.json."""
    import transformers

    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *PIECES]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n", encoding="utf-8")
    tokenizer = getattr(transformers, kind)(
        str(folder / "vocab.txt"), do_lower_case=lower, model_max_length=512
    )
    tokenizer.add_tokens(list(tokens))
    if normalize:
        own = tokenizer.backend_tokenizer.normalizer
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), own])
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | settings))
    return folder


def with_stale_cutting(folder):
    """As sentence encoders on the hub have it: another length and fixed padding in tokenizer.json."""
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(7, stride=2, strategy="only_first")
    backend.enable_padding(length=40, pad_id=9, pad_type_id=1, pad_to_multiple_of=8)
    backend.save(str(folder / "tokenizer.json"))
    return folder


SOURCES = {
    "as it comes": lambda folder: make_tokenizer(folder),
    "cut left": lambda folder: make_tokenizer(folder, truncation_side="left"),
    "both left, cased": lambda folder: make_tokenizer(
        folder, lower=False, truncation_side="left", padding_side="left"
    ),
    "normalized, with a token": lambda folder: make_tokenizer(
        folder, tokens=["great charm"], normalize=True, truncation_side="left"
    ),
    "stale": lambda folder: with_stale_cutting(make_tokenizer(folder, truncation_side="left")),
    "without segments, padded left": lambda folder: make_tokenizer(
        folder, padding_side="left", model_input_names=["input_ids", "attention_mask"]
    ),
    "of DistilBERT": lambda folder: make_tokenizer(folder, kind="DistilBertTokenizerFast"),
    "lower case told late": lambda folder: make_tokenizer(folder, lower=False, do_lower_case=True),
}


def make_model(labels, **settings):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
        **settings,
    )
    model = BertForSequenceClassification(config).eval()
    # What new weights are depends on the version of transformers.
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "LayerNorm" not in name:
                value.normal_(0.0, 0.6, generator=generator)
    return model


def export(source, output, texts):
    texts.write_text("\n".join(json.dumps({"text": text or "-"}) for text in TEXTS) + "\n", encoding="utf-8")
    return export_directory(
        str(source),
        str(texts),
        ExportConfig(),
        Context(
            output=output,
            columns=ColumnsConfig(max_length=LENGTH),
            run=RunConfig(device="cpu", threads=1),
            progress=SilentProgress(),
        ),
    ).model_dump()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with `dense`, a classifier that is cut and padded at the left, and `artifact`, its export."""
    folder = tmp_path_factory.mktemp("preprocessing")
    source = make_tokenizer(folder / "tokenizer", truncation_side="left", padding_side="left")
    model = make_model(["bad", "good", "mixed"])
    save_classifier(Classifier(model, load_tokenizer(str(source)), "dense"), folder / "dense")
    export(folder / "dense", folder / "artifact", folder / "texts.jsonl")
    return folder


@pytest.fixture
def artifact(exported, tmp_path):
    return Path(shutil.copytree(exported / "artifact", tmp_path / "artifact"))


def seal(artifact, **facts):
    """Make the manifest anew for the files as they are."""
    manifest = json.loads((artifact / MANIFEST).read_text())
    del manifest["files"], manifest["schema_version"]
    return write_manifest(artifact, manifest | facts)


def with_tokenizer(artifact, tokenizer):
    """Put another tokenizer into an artifact, as its export would have."""
    for path in artifact.iterdir():
        if path.name not in ("model.onnx", "config.json", MANIFEST):
            path.unlink()
    record = write_tokenizer(tokenizer, artifact, LENGTH, INPUTS)
    return seal(artifact, preprocessing=prove_preprocessing(tokenizer, artifact, record, TEXTS[:9], None))


@pytest.fixture(scope="module")
def serve():
    path = ROOT / "deploy" / "docker" / "serve.py"
    spec = importlib.util.spec_from_file_location("serve", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "serve", module)
        spec.loader.exec_module(module)
        yield module


def by_transformers(artifact, texts, pairs, **_):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(artifact)
    session = onnxruntime.InferenceSession(artifact / "model.onnx")
    batch = tokenizer(texts, pairs, truncation=True, padding=True, return_tensors="np")
    assert batch["input_ids"].shape == (len(texts), LENGTH)
    (logits,) = session.run(None, {entry.name: batch[entry.name] for entry in session.get_inputs()})
    return softmax(logits, axis=1)


def by_optimum(artifact, texts, pairs, **_):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    model = ORTModelForSequenceClassification.from_pretrained(artifact)
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None, batch_size=8)
    given = (
        texts if pairs is None else [{"text": a, "text_pair": b} for a, b in zip(texts, pairs, strict=True)]
    )
    answers = (
        classify(given, truncation=True)
        if pairs is None
        else [classify(one, truncation=True) for one in given]
    )
    labels = list(model.config.label2id)
    return np.array([[{a["label"]: a["score"] for a in found}[name] for name in labels] for found in answers])


def by_server(artifact, texts, pairs, serve, **_):
    settings = serve.Settings(artifact=artifact)
    app = serve.make_app(serve.Classifier(settings), settings)
    body = {"texts": texts} if pairs is None else {"texts": texts, "pairs": pairs}

    async def ask():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/predict", json=body)

    answer = asyncio.run(ask()).json()
    return np.array([list(found["scores"].values()) for found in answer["predictions"]])


def by_triton(artifact, texts, pairs, tmp_path, **_):
    output = tmp_path / "triton"
    write_repository(artifact, output, TritonConfig(max_batch_size=8, padding_multiple=5), force=False)
    session = onnxruntime.InferenceSession(output / "models/classifier/1/model.onnx")
    with Server(read_config(output / "models/classifier"), session) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        tokenizer = Tokenizer.from_file(str(output / "client/tokenizer.json"))
        given = texts if pairs is None else list(zip(texts, pairs, strict=True))
        with tritonclient.http.InferenceServerClient(server.url) as client:
            logits = triton_client.logits(client, "classifier", tokenizer, given)
        server.shutdown()
        thread.join()
    return softmax(logits, axis=1)


def by_tokenizers(artifact, texts, pairs, **_):
    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    session = onnxruntime.InferenceSession(artifact / "model.onnx")
    found = tokenizer.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))
    columns = {
        "input_ids": [entry.ids for entry in found],
        "attention_mask": [entry.attention_mask for entry in found],
        "token_type_ids": [entry.type_ids for entry in found],
    }
    (logits,) = session.run(None, {name: np.array(column) for name, column in columns.items()})
    return softmax(logits, axis=1)


BY_OPTIMUM = pytest.param(by_optimum, marks=NEEDS_OPTIMUM)
CONSUMERS = [by_transformers, BY_OPTIMUM, by_server, by_triton, by_tokenizers]


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("paired", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("name", SOURCES)
def test_every_consumer_answers_as_the_proof_did(name, paired, consumer, exported, artifact, serve, tmp_path):
    tokenizer = load_tokenizer(str(SOURCES[name](tmp_path / "source")))
    manifest = with_tokenizer(artifact, tokenizer)
    assert manifest["preprocessing"]["needs_transformers"] is None
    proven = TorchPredictor(load_classifier(str(exported / "dense")))
    proven.tokenizer = tokenizer
    pairs = PAIRS if paired else None
    expected = softmax(predict(proven, TextData(TEXTS, pairs, None, proven.label_names, ""), LENGTH), axis=1)
    assert len(set(expected.argmax(axis=1))) > 1
    found = consumer(artifact, TEXTS, pairs, serve=serve, tmp_path=tmp_path)
    assert np.abs(found - expected).max() < 1e-4
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_the_side_that_is_cut_matters_on_these_texts(exported, tmp_path):
    """Otherwise the test above could not fail."""
    model = load_classifier(str(exported / "dense"))
    answers = []
    for side in ("left", "right"):
        model.tokenizer = load_tokenizer(str(make_tokenizer(tmp_path / side, truncation_side=side)))
        data = TextData(TEXTS, None, None, model.label_names, "")
        logits = [predict(TorchPredictor(model), data, length) for length in (LENGTH, 64)]
        answers += [softmax(rows, axis=1) for rows in logits]
    for others in (answers[1], answers[2]):
        # More than what the test above lets pass.
        assert (np.abs(answers[0] - others).max(axis=1) > 1e-3).sum() > 5


def test_the_artifact_records_what_its_files_say(exported):
    manifest = read_manifest(exported / "artifact")
    expected = {
        "max_length": LENGTH,
        "truncation": "longest_first",
        "truncation_side": "left",
        "stride": 0,
        "padding": "longest",
        "padding_side": "right",
        "pad_token": "[PAD]",
        "pad_token_id": 0,
        "pad_token_type_id": 0,
        "inputs": ["input_ids", "attention_mask", "token_type_ids"],
        "source_padding_side": "left",
        "needs_transformers": None,
    }
    assert manifest["preprocessing"] == expected
    assert read_preprocessing(exported / "artifact", manifest) == expected
    config = json.loads((exported / "artifact" / "tokenizer_config.json").read_text())
    assert (config["model_max_length"], config["truncation_side"], config["padding_side"]) == (
        LENGTH,
        "left",
        "right",
    )
    backend = Tokenizer.from_file(str(exported / "artifact" / "tokenizer.json"))
    assert backend.truncation == {
        "max_length": LENGTH, "strategy": "longest_first", "stride": 0, "direction": "left"
    }  # fmt: skip
    assert backend.padding["direction"] == "right"
    assert backend.padding["length"] is None


@pytest.mark.parametrize("length", [5, LENGTH, 40])
def test_our_own_encoding_takes_the_length_that_it_is_given(exported, length):
    """Whatever tokenizer.json says."""
    source, written = (load_tokenizer(str(exported / name)) for name in ("dense", "artifact"))
    for pairs in (None, PAIRS):
        expected = encode_texts(source, TEXTS, pairs, length)
        assert encode_texts(written, TEXTS, pairs, length) == expected
        assert max(len(ids) for ids, _ in expected) == length


def test_what_is_loaded_and_saved_again_stays_the_same(exported, tmp_path):
    load_tokenizer(str(exported / "artifact")).save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert (again.model_max_length, again.truncation_side, again.padding_side) == (LENGTH, "left", "right")


def test_special_tokens_that_are_to_be_split_need_transformers(exported, artifact, serve, tmp_path):
    """tokenizer.json has no place for it."""
    source = make_tokenizer(tmp_path / "source", split_special_tokens=True)
    record = with_tokenizer(artifact, load_tokenizer(str(source)))["preprocessing"]
    assert (
        record["needs_transformers"]
        == "tokenizer.json alone encodes some texts otherwise than transformers does"
    )
    with pytest.raises(UserError, match=r"otherwise than transformers does; Triton's client cannot take it"):
        write_repository(artifact, tmp_path / "out", TritonConfig(), force=False)
    with pytest.raises(serve.StartError, match="so only transformers can encode its texts"):
        serve.Classifier(serve.Settings(artifact=artifact))


def test_a_tokenizer_that_is_saved_otherwise_fails_the_export(exported, artifact):
    """Such as one that was changed in memory where no file has it."""
    tokenizer = load_tokenizer(str(exported / "dense"))
    record = write_tokenizer(tokenizer, artifact, LENGTH, INPUTS)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("film", "plot")
    with pytest.raises(
        UserError, match=r"export failed: the tokenizer BertTokenizer(Fast)? that was saved encodes"
    ):
        prove_preprocessing(tokenizer, artifact, record, TEXTS, None)


def edit_json(name, **changes):
    def change(artifact):
        path = artifact / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def edit_block(block, **changes):
    def change(artifact):
        path = artifact / "tokenizer.json"
        content = json.loads(path.read_text())
        content[block] = {**content[block], **changes} if changes else None
        path.write_text(json.dumps(content))

    return change


CONTRADICTIONS = {
    "another length": (edit_block("truncation", max_length=20), "tokenizer.json: max_length is 20, and"),
    "another side": (edit_block("truncation", direction="Right"), "truncation_side is 'right', and"),
    "another order": (edit_block("truncation", strategy="OnlyFirst"), "truncation is 'only_first', and"),
    "windows": (edit_block("truncation", stride=3), "stride is 3, and"),
    "no cutting": (edit_block("truncation"), "max_length is None, and"),
    "padded left": (edit_block("padding", direction="Left"), "padding_side is 'left', and"),
    "another padding": (edit_block("padding", pad_id=5), "pad_token_id is 5, and"),
    "other segments": (edit_block("padding", pad_type_id=1), "pad_token_type_id is 1, and"),
    "fixed padding": (edit_block("padding", strategy={"Fixed": 16}), "padding is "),
    "no padding": (edit_block("padding"), "padding"),
    "length of transformers": (
        edit_json("tokenizer_config.json", model_max_length=64),
        "tokenizer_config.json: model_max_length is 64, and",
    ),
    "side of transformers": (
        edit_json("tokenizer_config.json", truncation_side="right"),
        "tokenizer_config.json: truncation_side is 'right', and",
    ),
    "padding of transformers": (
        edit_json("tokenizer_config.json", padding_side="left"),
        "tokenizer_config.json: padding_side is 'left', and",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_files_that_contradict_the_manifest_are_refused(case, artifact, exported, serve, tmp_path, capsys):
    change, says = CONTRADICTIONS[case]
    change(artifact)
    seal(artifact)
    with pytest.raises(serve.StartError) as stopped:
        serve.Classifier(serve.Settings(artifact=artifact))
    with pytest.raises(UserError) as refused:
        write_repository(artifact, tmp_path / "out", TritonConfig(), force=False)
    code = execute(measure("perturb", artifact, exported, tmp_path, LENGTH))
    assert code == 2
    for line in (str(stopped.value), str(refused.value), capsys.readouterr().err):
        assert says in line
        assert "export it again with: compress export" in line


def measure(command, artifact, exported, tmp_path, length):
    (tmp_path / "data.csv").write_text(
        "text,label\na good film,good\na bad plot,bad\nthe charm of it,mixed\n"
    )
    data = [
        "--data",
        str(tmp_path / "data.csv"),
        "--max-length",
        str(length),
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    head = {
        "attack": ["attack", str(artifact), "--attack-examples", "1"],
        "perturb": ["perturb", str(artifact), "--perturbations", "casing"],
        "validate": ["validate", str(exported / "dense"), str(artifact), "--sequence-lengths", "16"],
    }
    return [*head[command], *data, "--output", str(tmp_path / "measured")]


@pytest.mark.parametrize("command", ["attack", "perturb", "validate"])
def test_longer_inputs_than_were_proven_are_not_measured(command, artifact, exported, tmp_path, capsys):
    assert execute(measure(command, artifact, exported, tmp_path, LENGTH + 1)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"{artifact}: was proven with inputs of at most 16 tokens" in line
    assert "give --max-length 16, or export it again with --max-length 17" in line
    assert not (tmp_path / "measured").exists()


def test_shorter_inputs_are_measured(artifact, exported, tmp_path):
    assert execute(measure("perturb", artifact, exported, tmp_path, 8)) == 0


def test_longer_inputs_than_were_proven_are_not_served(artifact, serve, tmp_path):
    with pytest.raises(serve.StartError, match="--max-tokens: 17 is more than the 16 that"):
        serve.Classifier(serve.Settings(artifact=artifact, max_tokens=17))
    with pytest.raises(UserError, match="was exported with at most 16 tokens"):
        write_repository(artifact, tmp_path / "out", TritonConfig(max_length=17), force=False)


def test_shorter_inputs_are_served_and_cut_at_the_same_side(artifact, exported, serve):
    proven = TorchPredictor(load_classifier(str(exported / "dense")))
    logits = predict(proven, TextData(TEXTS, None, None, proven.label_names, ""), 9)
    found = serve.Classifier(serve.Settings(artifact=artifact, max_tokens=9)).answers(TEXTS, None)
    assert np.abs(found - softmax(logits, axis=1)).max() < 1e-4


def test_an_early_export_is_refused(artifact, exported, serve, tmp_path, capsys):
    manifest = json.loads((artifact / MANIFEST).read_text())
    del manifest["preprocessing"]
    (artifact / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(serve.StartError, match="has no preprocessing; export it again with: compress export"):
        serve.Classifier(serve.Settings(artifact=artifact))
    for command in ("perturb", "validate"):
        assert execute(measure(command, artifact, exported, tmp_path, LENGTH)) == 2
        assert "has no preprocessing, as early exports have not" in capsys.readouterr().err
    assert execute(["triton", str(artifact), "--output", str(tmp_path / "out")]) == 2
    assert artifact_problems(artifact) == []
    assert execute(["inspect", str(artifact)]) == 0


@pytest.fixture(scope="module")
def slow_only(exported, tmp_path_factory):
    """A classifier whose tokenizer is Japanese and has no fast form, its export, and what that printed."""
    folder = tmp_path_factory.mktemp("slow")
    model = shutil.copytree(exported / "dense", folder / "dense")
    words = load_tokenizer(str(model)).get_vocab()
    (model / "vocab.txt").write_text("\n".join(sorted(words, key=words.get)) + "\n", encoding="utf-8")
    for path in model.glob("*token*"):
        path.unlink()
    settings = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "basic",
                "subword_tokenizer_type": "character", "truncation_side": "left"}  # fmt: skip
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    arguments = ["export", str(model), "--data", str(exported / "texts.jsonl"), "--max-length", str(LENGTH)]
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        # The weights are the same.
        graph = exported / "artifact" / "model.onnx"
        patch.setattr("exporters.graph_forms.export_graph", lambda _, path, dtype: shutil.copy(graph, path))
        code = execute([*arguments, "--threads", "1", "--output", str(folder / "artifact")])
    assert code == 0, errors.getvalue()
    return folder, errors.getvalue().splitlines()


def test_export_warns_of_a_tokenizer_without_a_fast_form(slow_only):
    folder, lines = slow_only
    reason = (
        "its tokenizer, BertJapaneseTokenizer, has no tokenizer.json: transformers has no fast form of it"
    )
    assert read_manifest(folder / "artifact")["preprocessing"]["needs_transformers"] == reason
    assert f"warning: {folder / 'artifact'}: {reason}; {preprocessing.WITHOUT_TRANSFORMERS}" in lines


def test_triton_and_the_server_name_the_true_reason(slow_only, serve, tmp_path):
    artifact = slow_only[0] / "artifact"
    with pytest.raises(UserError, match=r"has no tokenizer\.json: .*; Triton's client cannot take it"):
        write_repository(artifact, tmp_path / "out", TritonConfig(), force=False)
    with pytest.raises(serve.StartError, match=r"has no tokenizer\.json: .* so only transformers can"):
        serve.Classifier(serve.Settings(artifact=artifact))


@pytest.mark.parametrize("consumer", [by_transformers, BY_OPTIMUM])
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["texts", "pairs"])
def test_a_slow_tokenizer_cuts_as_the_proof_did(slow_only, pairs, consumer):
    folder, _ = slow_only
    proven = TorchPredictor(load_classifier(str(folder / "dense")))
    data = TextData(TEXTS, pairs, None, proven.label_names, "")
    expected = softmax(predict(proven, data, LENGTH), axis=1)
    assert np.abs(consumer(folder / "artifact", TEXTS, pairs) - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("labels", "problem", "expected"),
    [
        (["score"], None, "regression"),
        (["score"], "regression", "regression"),
        (["bad", "good"], None, "single_label_classification"),
    ],
)
def test_a_pipeline_is_told_what_kind_of_answers_there_are(labels, problem, expected, tmp_path):
    """Without, it gives a regression's number through a sigmoid."""
    model = make_model(labels, problem_type=problem)
    artifact_stage.write_config(Classifier(model, None, "dense"), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == expected
    assert model.config.problem_type == problem


def documented_loading():
    """The blocks of Python in which the pages load an artifact."""
    for page in ("README.md", "docs/how-to/exporting.md"):
        blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)
        for block in blocks:
            if "runs/quickstart/artifact" in block:
                yield pytest.param(block, marks=NEEDS_OPTIMUM if "optimum" in block else ())


@pytest.mark.parametrize("block", documented_loading())
def test_the_documented_ways_to_load_an_artifact_work(block, exported):
    """On texts that the proof would cut."""
    long = "the film was good " * 30
    block = block.replace("runs/quickstart/artifact", str(exported / "artifact"))
    block = block.replace("a quiet film", long).replace("a quietly devastating film", long)
    names: dict[str, object] = {}
    exec(compile(block, "page", "exec"), names)  # noqa: S102
    assert "artifact" in names


def test_there_are_documented_ways():
    assert len(list(documented_loading())) == 4
