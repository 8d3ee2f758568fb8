"""A real small classifier and real texts, made once a session; no test needs the network."""

import copy
import fcntl
import os
import shutil
import sys

# Before torch and the Hugging Face libraries are imported, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Threads that wait for each other sleep; spinning takes minutes where other processes run too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import onnxruntime
import pytest
import torch
from broken_artifacts import make_artifact
from project import ROOT
from small_models import keep_neurons, keep_word_pieces

from compressor.data.texts import TextData, load_text_data
from compressor.models.classifier import Classifier, encoder_linears, load_classifier, save_classifier
from compressor.options import (
    AdaptiveConfig,
    ColumnsConfig,
    ExportConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
)
from compressor.pipeline.quickstart import encoder_directory, write_data
from compressor.pruning.interface import prune_directory
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.training.finetune_stage import finetune_directory
from compressor.training.mixture import Replacements
from compressor.training.substitution import WORD
from exporters.stage import export_directory

# `serve.py` finds the module beside it, as in its image.
sys.path.append(str(ROOT / "deploy" / "docker"))

# How long an example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile("untimed", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("untimed")

# The number of one of pytest-xdist's processes.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
# Also where a process has one core: another number would sum otherwise, and so train other models.
THREADS = 2
MAX_LENGTH = 48
SMALL_EXAMPLES = 600
TEST_STEP = 4
FINETUNE_EXAMPLES = 1000
ENCODER_LAYERS = 2
NEURONS = 256

MadeOnce = Callable[[str, Callable[[Path], None]], Path]


def pytest_configure() -> None:
    """Give each of several test processes, and what it starts, a core of its own.

    Threads that wait for those of another process on the same cores take far longer.
    """
    if WORKER and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(WORKER) % len(cores)]})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a model that is trained here, which `make test-fast` leaves out."""
    for item in items:
        if "small_encoder_dir" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.model)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device here")
    providers = onnxruntime.get_available_providers()
    if item.get_closest_marker("onnxruntime_cuda") and "CUDAExecutionProvider" not in providers:
        pytest.skip("this ONNX Runtime is built for CPUs")


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches in a folder of the session, and the number of threads of a small machine."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        # One for all test processes: word vectors take a minute to make.
        patch.setenv("COMPRESS_CACHE", str((base.parent if WORKER else base) / "cache"))
        torch.set_num_threads(THREADS)
        # No power cut ends the tests; to flush every file takes longer than to write it.
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """A function: the folder of that name, which the first test process to ask for it makes and fills."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if WORKER else base) / "made"

    def folder_of(name: str, fill: Callable[[Path], None]) -> Path:
        folder, whole = shared / name, shared / f"{name}.whole"
        shared.mkdir(exist_ok=True)
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                whole.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def critic_quotes(made_once: MadeOnce) -> Path:
    """A folder with `train.tsv`, 600 of its quotes in `small.tsv`, and 500 test quotes in `test.tsv`."""

    def fill(folder: Path) -> None:
        write_data(folder)
        train, test = (
            (folder / name).read_text(encoding="utf-8").splitlines() for name in ("train.tsv", "test.tsv")
        )
        for name, count in (("small.tsv", SMALL_EXAMPLES), ("finetune.tsv", FINETUNE_EXAMPLES)):
            (folder / name).write_text("\n".join(train[: 1 + count]) + "\n", encoding="utf-8")
        # Quotes on one film stand together.
        spread = [test[0], *test[1::TEST_STEP]]
        (folder / "test.tsv").write_text("\n".join(spread) + "\n", encoding="utf-8")

    return made_once("quotes", fill)


@pytest.fixture(scope="session")
def small_encoder_dir(critic_quotes: Path, made_once: MadeOnce) -> Path:
    """MiniLM's first two encoder layers with 256 neurons each and the quotes' word pieces, without a head."""

    def fill(folder: Path) -> None:
        from transformers import AutoTokenizer, BertModel

        source = encoder_directory()
        model, tokenizer = BertModel.from_pretrained(source), AutoTokenizer.from_pretrained(source)
        model.encoder.layer = model.encoder.layer[:ENCODER_LAYERS]
        model.config.num_hidden_layers = ENCODER_LAYERS
        keep_neurons(model, NEURONS)
        texts = [
            line.split("\t")[0]
            for name in ("train.tsv", "test.tsv")
            for line in (critic_quotes / name).read_text(encoding="utf-8").splitlines()
        ]
        tokenizer = keep_word_pieces(model, tokenizer, texts, folder)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return made_once("encoder", fill)


@pytest.fixture(scope="session")
def small_classifier_dir(critic_quotes: Path, small_encoder_dir: Path, made_once: MadeOnce) -> Path:
    """The small encoder, fine-tuned on critic quotes through the finetune stage."""

    def fill(folder: Path) -> None:
        finetune_directory(
            str(small_encoder_dir),
            str(critic_quotes / "finetune.tsv"),
            FinetuneConfig(epochs=3, learning_rate=3e-4),
            Context(
                output=folder / "classifier",
                columns=ColumnsConfig(max_length=MAX_LENGTH),
                run=RunConfig(device="cpu", threads=THREADS),
                progress=SilentProgress(),
            ),
        )

    return made_once("small", fill) / "classifier"


@pytest.fixture(scope="session")
def numbered_pairs(critic_quotes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train.tsv` and `test.tsv`: short pairs and a number, -1.5 to 1.2, as in STS-B.

    The number tells how long the second one is, which a small model learns in a moment.
    """
    folder = tmp_path_factory.mktemp("pairs")
    lines = (critic_quotes / "small.tsv").read_text(encoding="utf-8").splitlines()[1:]
    quotes = [line.split("\t")[0].split() for line in lines]
    rows = [
        f"{' '.join(first[:4])}\t{' '.join(second[: 1 + row % 9])}\t{row % 9 / 3 - 1.5:.2f}"
        for row, (first, second) in enumerate(zip(quotes[:250], quotes[250:500], strict=True))
    ]
    for name, part in (("train", rows[:150]), ("test", rows[150:])):
        text = "\n".join(["sentence1\tsentence2\tlabel", *part])
        (folder / f"{name}.tsv").write_text(text + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def regression_dir(numbered_pairs: Path, small_encoder_dir: Path, made_once: MadeOnce) -> Path:
    """The small encoder, fine-tuned to give the numbers of pairs."""

    def fill(folder: Path) -> None:
        finetune_directory(
            str(small_encoder_dir),
            str(numbered_pairs / "train.tsv"),
            FinetuneConfig(task="regression", epochs=3, learning_rate=5e-4, batch_size=8),
            Context(
                output=folder / "model",
                columns=ColumnsConfig(max_length=MAX_LENGTH),
                run=RunConfig(device="cpu", threads=THREADS),
                progress=SilentProgress(),
            ),
        )

    return made_once("regression", fill) / "model"


@pytest.fixture
def small_classifier(small_classifier_dir: Path) -> Classifier:
    """A fresh copy of the small classifier, to be changed at will."""
    return load_classifier(str(small_classifier_dir))


@pytest.fixture(scope="session")
def quotes(critic_quotes: Path) -> TextData:
    """The 600 training quotes in memory."""
    return load_text_data(
        str(critic_quotes / "small.tsv"), ColumnsConfig(), "train", label_names=["fresh", "rotten"]
    )


@pytest.fixture(scope="session")
def test_quotes(critic_quotes: Path) -> TextData:
    """The 500 test quotes in memory."""
    return load_text_data(
        str(critic_quotes / "test.tsv"), ColumnsConfig(), "test", label_names=["fresh", "rotten"]
    )


@pytest.fixture(scope="session")
def any_others(quotes: TextData) -> Replacements:
    """In place of close words: for each longer word of critics five others, whatever they mean."""
    words = {word.lower() for text in quotes.texts for word in WORD.findall(text)}
    others = sorted(word for word in words if len(word) > 4)
    close = {word: others[place : place + 5] for place, word in enumerate(others[:-5])}
    return lambda word, generator: close.get(word.lower(), ())


@pytest.fixture(scope="session")
def vectors_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Vectors of a few words of critics and of made-up ones, all of them close to each other."""
    words = ["film", "movie", "good", "bad", "story", "funny", *(f"word{place}" for place in range(60))]
    path = tmp_path_factory.mktemp("close") / "words.npz"
    np.savez(path, words=np.array(words), vectors=1 + 0.1 * np.eye(len(words)))
    return str(path)


@pytest.fixture(scope="session")
def half_as_wide_dir(small_classifier_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small classifier with half of its neurons, as structured pruning would leave it."""
    classifier = load_classifier(str(small_classifier_dir))
    keep_neurons(classifier.model.bert, NEURONS // 2)
    folder = tmp_path_factory.mktemp("half_as_wide")
    save_classifier(classifier, folder)
    return folder


@pytest.fixture(scope="session")
def small_pruned_dir(critic_quotes: Path, small_classifier_dir: Path, made_once: MadeOnce) -> Path:
    """The small classifier, half of whose encoder weights the adaptive algorithm has zeroed."""

    def fill(folder: Path) -> None:
        prune_directory(
            str(small_classifier_dir),
            str(critic_quotes / "small.tsv"),
            PruneConfig(sparsity=0.5, calibration_examples=64, adaptive=AdaptiveConfig(iterations=10)),
            Context(
                output=folder / "classifier",
                columns=ColumnsConfig(max_length=MAX_LENGTH),
                run=RunConfig(device="cpu", threads=THREADS),
                progress=SilentProgress(),
            ),
        )

    return made_once("pruned", fill) / "classifier"


@pytest.fixture(scope="session")
def small_artifact_dir(small_pruned_dir: Path, made_once: MadeOnce) -> Path:
    """The pruned small classifier, exported to ONNX."""

    def fill(folder: Path) -> None:
        export_directory(
            str(small_pruned_dir),
            None,
            ExportConfig(parity_examples=50),
            Context(
                output=folder / "artifact",
                columns=ColumnsConfig(max_length=MAX_LENGTH),
                run=RunConfig(device="cpu", threads=THREADS),
                progress=SilentProgress(),
            ),
        )

    return made_once("artifact", fill) / "artifact"


@pytest.fixture(scope="session")
def openvino_artifact_dir(small_pruned_dir: Path, made_once: MadeOnce) -> Path:
    """The pruned small classifier, exported for OpenVINO."""

    def fill(folder: Path) -> None:
        export_directory(
            str(small_pruned_dir),
            None,
            ExportConfig(runtime="openvino", parity_examples=50),
            Context(
                output=folder / "artifact",
                columns=ColumnsConfig(max_length=MAX_LENGTH),
                run=RunConfig(device="cpu", threads=1),
                progress=SilentProgress(),
            ),
        )

    return made_once("openvino", fill) / "artifact"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `dense`, a BERT of one narrow layer, `artifact`, its export, and `data.tsv`."""
    folder = tmp_path_factory.mktemp("made")
    make_artifact(folder)
    return folder


@pytest.fixture
def artifact(made: Path, tmp_path: Path) -> Path:
    """A fresh copy of that artifact, to be broken at will."""
    return shutil.copytree(made / "artifact", tmp_path / "artifact")


@pytest.fixture
def writable_copy(small_classifier_dir: Path, tmp_path: Path) -> Path:
    """A copy of the small classifier's directory, to be damaged at will."""
    return Path(shutil.copytree(small_classifier_dir, tmp_path / "copy"))


@pytest.fixture(scope="session")
def drifted_copy():
    """A function that copies a model and moves all its encoder weights by a normal of some scale."""

    def drift(model, scale):
        model = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for linear in encoder_linears(model).values():
                linear.weight += scale * torch.randn(linear.weight.shape, generator=generator)
        return model

    return drift
