"""The recipe for GLUE, with model and data from a hub on this machine: small stand-ins under the real ids."""

import subprocess
import sys
from pathlib import Path

import datasets
import local_hub
import pytest
import stand_ins
from project import ROOT

from compressor.system.files import read_json

pytestmark = pytest.mark.slow

RECIPE = ROOT / "deploy" / "recipes" / "glue-sst2.yaml"
MODEL, DATA = "models/google-bert/bert-base-uncased", "datasets/nyu-mll/glue"
# As in the real repository: two configurations, classes with names, and a test set whose labels are hidden.
CARD = """\
---
dataset_info:
- config_name: sst2
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
  - name: idx
    dtype: int32
configs:
- config_name: mrpc
  data_files:
  - {split: train, path: mrpc/train-*}
- config_name: sst2
  data_files:
  - {split: train, path: sst2/train-*}
  - {split: validation, path: sst2/validation-*}
  - {split: test, path: sst2/test-*}
---
"""
# Runs a command on the tiny world that the tests of the pages use; the model and the data are from the hub.
RUN = """
import sys, pytest, stand_ins, cli
from pathlib import Path
stand_ins.put_in_place(pytest.MonkeyPatch(), Path(sys.argv[1]))
sys.exit(cli.execute(sys.argv[2:]))
"""
# What a model of 32 hidden units needs to learn anything.
SMALL = ["--set", "finetune.learning_rate=0.005", "--set", "run.device=cpu", "--set", "run.threads=1"]


def parquet(rows: list[tuple[str, int]], file: Path) -> bytes:
    """Sentences and labels as GLUE has them."""
    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
            "idx": datasets.Value("int32"),
        }
    )
    columns = {
        "sentence": [sentence for sentence, _ in rows],
        "label": [label for _, label in rows],
        "idx": list(range(len(rows))),
    }
    datasets.Dataset.from_dict(columns, features=features).to_parquet(file)
    return file.read_bytes()


def rows_of(file: Path) -> list[tuple[str, int]]:
    """The stand-in's texts with SST-2's labels."""
    lines = [line.split("\t") for line in file.read_text().splitlines()[1:]]
    return [(text, int(label == "fresh")) for text, label in lines]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The directory of a BERT that knows the words of the texts, without a head."""
    from transformers import AutoTokenizer, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    stand_ins.write_encoder(folder / "classifier")
    BertModel.from_pretrained(folder / "classifier").save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(folder / "classifier").save_pretrained(folder / "bert")
    return folder / "bert"


@pytest.fixture(scope="module")
def run(encoder, tmp_path_factory):
    """A function that runs the recipe in the same folder with a hub's address and further arguments."""
    folder = tmp_path_factory.mktemp("glue")
    stand_ins.write_texts(folder)
    train, test = (rows_of(folder / name) for name in ("train.tsv", "test.tsv"))
    splits = {"train": train, "validation": test, "test": [(text, -1) for text, _ in test]}
    files = {"README.md": CARD.encode()} | {
        f"sst2/{name}-00000-of-00001.parquet": parquet(rows, folder / "rows.parquet")
        for name, rows in splits.items()
    }
    with local_hub.local_hub() as hub:
        hub.add(MODEL, local_hub.files_in(encoder))
        hub.add(DATA, files | {"mrpc/train-00000-of-00001.parquet": b"never read"})

        def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
            command = ["run", str(RECIPE), "--output", "run", *SMALL, *arguments]
            return subprocess.run(
                [sys.executable, "-c", RUN, str(encoder), *command],
                env=local_hub.environment(hub.url, folder / "home", **variables),
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=550,
                check=False,
            )

        call.folder, call.hub, call.rows = folder, hub, len(train)
        yield call


def test_the_recipe_runs_from_the_hub_and_then_from_its_cache(run):
    done = run()
    # The gates of eight texts may fail; anything else may not.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert done.returncode == 0 or "gate failed: " in done.stderr
    record = read_json(run.folder / "run" / "dense" / "training.json")
    assert record["data"]["source"] == "glue/sst2"
    assert record["data"]["examples"] == run.rows
    config = read_json(run.folder / "run" / "artifact" / "config.json")
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert (run.folder / "run" / "report.html").is_file()
    before = len(run.hub.requests)
    again = run(HF_HUB_OFFLINE="1")
    assert again.returncode == done.returncode, again.stdout + again.stderr
    assert len(run.hub.requests) == before
    assert "reused" in again.stdout + again.stderr
