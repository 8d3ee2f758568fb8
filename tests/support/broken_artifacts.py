"""A small artifact to break: how it is made, sealed anew, and what the commands say to it."""

import json
from pathlib import Path

import torch

from cli import execute
from compressor.models.classifier import Classifier, save_classifier
from compressor.models.manifest import MANIFEST, write_manifest
from compressor.options import ColumnsConfig, ExportConfig, RunConfig
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from exporters.stage import export_directory

WORDS = ["a", "fine", "film", "of", "great", "charm", "dull", "and", "empty", "story", "without", "point"]
GRAPH, CONFIG, TOKENIZER, VOCABULARY = "model.onnx", "config.json", "tokenizer.json", "vocab.txt"
LENGTH = 24
PREDICTING = ["attack", "perturb", "validate"]
READING = [*PREDICTING, "inspect"]


def make_artifact(folder: Path) -> None:
    """Fill a folder with `dense`, a BERT of one narrow layer, `artifact`, its export, and `data.tsv`."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "words.txt").write_text("\n".join(vocabulary) + "\n")
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        id2label={0: "fresh", 1: "rotten"},
        label2id={"fresh": 0, "rotten": 1},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).eval()
    (folder / "dense").mkdir()
    tokenizer = BertTokenizerFast(str(folder / "words.txt"))
    save_classifier(Classifier(model, tokenizer, "dense"), folder / "dense")
    rows = [f"{' '.join(WORDS[start : start + 5])}\t{start % 2}" for start in range(8)]
    (folder / "data.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    export_directory(
        str(folder / "dense"),
        str(folder / "data.tsv"),
        ExportConfig(),
        Context(
            output=folder / "artifact",
            columns=ColumnsConfig(max_length=LENGTH),
            run=RunConfig(device="cpu", threads=1),
            progress=SilentProgress(),
        ),
    )


def seal(artifact):
    """Make the manifest anew, so that it fits the files as they are."""
    facts = json.loads((artifact / MANIFEST).read_text(encoding="utf-8"))
    (artifact / MANIFEST).unlink()
    write_manifest(artifact, {key: value for key, value in facts.items() if key != "files"})


def run(name, made, artifact, output):
    """The exit code of a command on an artifact."""
    data = ["--data", str(made / "data.tsv"), "--max-length", str(LENGTH)]
    rest = ["--output", str(output), "--device", "cpu", "--threads", "1"]
    command = {
        "attack": ["attack", str(artifact), *data, "--attack-examples", "2", *rest],
        "perturb": ["perturb", str(artifact), *data, "--perturbations", "casing", *rest],
        # The default lengths of the latency table are above the positions of so small a model.
        "validate": [
            *("validate", str(made / "dense"), str(artifact), *data, *rest),
            *("--sequence-lengths", str(LENGTH)),
        ],
        "inspect": ["inspect", str(artifact), *rest],
        "verify": ["verify", str(artifact)],
    }
    return execute(command[name])


def refusal(name, made, artifact, capsys):
    """The one line that a command ends with; its exit code is 2, and it has written nothing."""
    output = artifact.with_name("output")
    assert run(name, made, artifact, output) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert len(lines[0]) < 700
    assert "Traceback" not in printed.err + printed.out
    assert not any(path.name != "artifact" for path in artifact.parent.iterdir())
    return lines[0].removeprefix("error: ")
