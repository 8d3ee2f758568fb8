"""Models and data sets by id: from a hub on this machine, from its cache, and where there is no hub."""

import socket
from pathlib import Path

import datasets
import local_hub
import pytest
from tiny_checkpoints import edit_json, make_checkpoint

from compressor.data.texts import load_text_data
from compressor.options import ColumnsConfig
from compressor.system.files import read_json

pytestmark = pytest.mark.slow

TEXTS = ["a fine film", "a dull story", "great charm", "empty and dull", "a great story", "dull film"]
LABELS = ["pos", "neg", "pos", "neg", "pos", "neg"]
# Of the training data alone, so that a split is known by its texts.
EXTRA = ("of great charm", "pos")
SPLITS = {"train": [*zip(TEXTS, LABELS, strict=True), EXTRA], "test": list(zip(TEXTS, LABELS, strict=True))}
WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
# Seconds that a command may take on a busy machine to find out that there is no hub; retries take longer.
SOON = 10


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    """Rows below a header."""
    return "".join(f"{text},{label}\n" for text, label in [("text", "label"), *rows]).encode()


def as_jsonl(rows: list[tuple[str, str]]) -> bytes:
    """An object a line."""
    return "".join(f'{{"text": "{text}", "label": "{label}"}}\n' for text, label in rows).encode()


def as_parquet(rows: list[tuple[str, str]], folder: Path) -> bytes:
    """A table whose labels are declared classes."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "rows.parquet")
    return (folder / "rows.parquet").read_bytes()


def finetune(data: str, name: str) -> list[str]:
    """A training of a moment, whose record says what the data were."""
    size = ["--max-length", "12", "--epochs", "1", "--batch-size", "4", "--device", "cpu", "--threads", "1"]
    return ["finetune", "some/model", "--data", data, *size, "--output", name]


ONLINE = {
    "model": ["inspect", "some/model"],
    "revision": ["inspect", "some/model@v1"],
    "no such revision": ["inspect", "some/model@v2"],
    "gated": ["inspect", "some/gated"],
    "absent": ["inspect", "some/absent"],
    "pickle": ["inspect", "some/pickle"],
    "no weights": ["inspect", "some/readme"],
    "cut": ["inspect", "some/cut"],
    "csv": finetune("some/csv", "csv"),
    "csv test": finetune("some/csv:test", "csv-test"),
    "csv revision": finetune("some/csv@v1:train", "csv-v1"),
    "jsonl": finetune("some/jsonl", "jsonl"),
    "parquet": finetune("some/parquet", "parquet"),
    "no such split": finetune("some/csv:nosuch", "none"),
    "gated data": finetune("some/secret", "none"),
    "absent data": finetune("some/nothing", "none"),
    "no such revision of data": finetune("some/csv@v2", "none"),
    "cut data": finetune("some/cut", "none"),
}
WITH_TOKEN = {
    "gated": ["inspect", "some/gated"],
    "cut": ["inspect", "some/cut"],
    "cut data": finetune("some/cut", "cut"),
}
OFFLINE = {
    "model": ["inspect", "some/model"],
    "revision": ["inspect", "some/model@v1"],
    "absent": ["inspect", "some/absent"],
    "pickle": ["inspect", "some/pickle"],
    "jsonl": [*finetune("some/jsonl", "jsonl-cached"), "--force"],
    "csv": finetune("some/csv", "none"),
    "csv revision": [*finetune("some/csv@v1:train", "csv-v1-cached"), "--force"],
    "absent data": finetune("some/nothing", "none"),
}
CACHED = ("model", "revision", "jsonl", "csv revision")
NOT_CACHED = {"absent": "some/absent", "pickle": "some/pickle", "absent data": "some/nothing"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run; the hub's caches are in it."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def model(folder):
    """The files of a small classifier."""
    return local_hub.files_in(make_checkpoint(folder / "model"))


@pytest.fixture(scope="module")
def hub(folder, model):
    """A hub with models and data sets of all kinds, whose first download of some files breaks off."""
    other = make_checkpoint(folder / "v1")
    edit_json(other / "config.json", id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    rest = {name: content for name, content in model.items() if name != WEIGHTS}
    csv = {f"{split}.csv": as_csv(rows) for split, rows in SPLITS.items()}
    with local_hub.local_hub() as hub:
        hub.add("models/some/model", model)
        hub.add("models/some/model", local_hub.files_in(other), revision="v1")
        hub.add("models/some/gated", model, is_gated=True)
        hub.add("models/some/pickle", rest | {PICKLE: b"a pickle"})
        hub.add("models/some/readme", rest)
        # The library writes 10 MB at a time.
        large = make_checkpoint(folder / "large", vocab_size=750_000)
        hub.add("models/some/cut", local_hub.files_in(large))
        hub.add("datasets/some/csv", csv)
        hub.add("datasets/some/csv", {"train.csv": as_csv(SPLITS["train"][2:])}, revision="v1")
        hub.add("datasets/some/jsonl", {f"{split}.jsonl": as_jsonl(rows) for split, rows in SPLITS.items()})
        parquet = {f"data/{split}.parquet": as_parquet(rows, folder) for split, rows in SPLITS.items()}
        hub.add("datasets/some/parquet", parquet)
        hub.add("datasets/some/secret", csv, is_gated=True)
        hub.add("datasets/some/cut", {"train.jsonl": as_jsonl(SPLITS["train"])})
        # More than the libraries try by themselves.
        hub.breaks["models/some/cut/model.safetensors"] = 100
        hub.breaks["datasets/some/cut/train.jsonl"] = 100
        yield hub


def run(hub: local_hub.Hub, folder: Path, each: dict[str, list[str]], **variables: str):
    """Run commands in a process of their own; how each ended."""
    environment = local_hub.environment(hub.url, folder / "home", **variables)
    done = local_hub.commands(list(each.values()), environment, folder)
    return dict(zip(each, done, strict=True))


@pytest.fixture(scope="module")
def online(hub, folder):
    """The first process, whose caches are empty."""
    return run(hub, folder, ONLINE)


@pytest.fixture(scope="module")
def with_token(hub, folder, online):
    """The second process, of somebody who has accepted terms; nothing breaks off any more."""
    hub.breaks.clear()
    return run(hub, folder, WITH_TOKEN, HF_TOKEN=hub.token)


@pytest.fixture(scope="module")
def offline(hub, folder, with_token):
    """The third process, which has the caches alone; and what it asked the hub."""
    before = len(hub.requests)
    found = run(hub, folder, OFFLINE, HF_HUB_OFFLINE="1")
    return found, hub.requests[before:]


@pytest.fixture(scope="module")
def without_hub(folder, with_token):
    """The fourth process, with the same caches and an endpoint at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = local_hub.Hub(url=f"http://127.0.0.1:{server.getsockname()[1]}")
    return run(closed, folder, OFFLINE), closed.url


def is_done(done: local_hub.Done) -> None:
    """Check that a command succeeded, and printed no error and no bars of a library."""
    assert (done.code, done.error) == (0, "")


def one_line(done: local_hub.Done, *parts: str) -> None:
    """Check that a command was refused in one line that has all parts."""
    assert done.code == 2, done.error
    assert done.error.count("\n") == 1, done.error
    for part in parts:
        assert part in done.error


def data_of(folder: Path, name: str) -> dict:
    """What the record of a training says of its data."""
    found: dict = read_json(folder / name / "training.json")["data"]
    return found


# models -----------------------------------------------------------------------------------------


def test_a_model_is_loaded_by_its_id_and_kept_in_the_cache_as_links(hub, folder, online):
    is_done(online["model"])
    assert "labels neg, pos" in online["model"].output
    commit = hub.repositories["models/some/model"].commit_of("main")
    cache = folder / "home" / "hub" / "models--some--model"
    assert (cache / "refs" / "main").read_text() == commit
    weights = cache / "snapshots" / commit / WEIGHTS
    assert weights.is_symlink()
    assert weights.resolve().parent == cache / "blobs"


def test_a_revision_is_loaded_by_its_name(online):
    assert "labels bad, good" in online["revision"].output
    one_line(online["no such revision"], "some/model@v2", "it has no revision v2")


def test_a_gated_model_says_how_to_get_at_it_and_is_loaded_with_a_token(hub, online, with_token):
    one_line(online["gated"], f"accept its terms at {hub.url}/some/gated", "hf auth login", "HF_TOKEN")
    is_done(with_token["gated"])


def test_a_model_that_does_not_exist_or_is_private_is_refused(hub, online):
    one_line(online["absent"], "some/absent", f"{hub.url} has no such model, or it is private")


def test_a_pickle_is_refused_and_nobody_is_asked_to_convert_it(hub, online):
    one_line(
        online["pickle"], f"some/pickle: {PICKLE}: is a pickle", "ID@REVISION", "convert it with: python"
    )
    asked = [request.path for request in hub.requests if "some/pickle" in request.path]
    assert not [
        path for path in asked if path.endswith(PICKLE) or "/commits/" in path or "discussions" in path
    ]
    one_line(online["no weights"], "some/readme: has no model.safetensors")


def test_an_interrupted_download_is_not_used_and_is_resumed_by_the_next_run(hub, folder, online, with_token):
    one_line(online["cut"], "some/cut", f"the download from {hub.url} failed", "run the command again")
    is_done(with_token["cut"])
    content = hub.repositories["models/some/cut"].revisions["main"][WEIGHTS]
    # The library resumes it in the next run, or since 1.0 in the same one, where it tries again by itself.
    first, *others = hub.downloads("some/cut", WEIGHTS)
    assert first is None
    assert max(int((part or "0-").removeprefix("bytes=").removesuffix("-")) for part in others) > 0
    cache = folder / "home" / "hub" / "models--some--cut"
    (weights,) = cache.glob(f"snapshots/*/{WEIGHTS}")
    assert weights.read_bytes() == content
    assert not list(cache.rglob("*.incomplete"))


# data sets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet"])
def test_a_data_set_is_that_of_a_file(folder, online, name):
    is_done(online[name])
    file = folder / "same.csv"
    file.write_bytes(as_csv(SPLITS["train"]))
    same = load_text_data(str(file), ColumnsConfig(), "train", label_names=["neg", "pos"])
    found = data_of(folder, name)
    assert found["source"] == f"some/{name}"
    assert found["fingerprint"] == same.fingerprint


def test_a_split_and_a_revision_are_taken_by_their_names(folder, online):
    for name in ("csv test", "csv revision"):
        is_done(online[name])
    assert data_of(folder, "csv-test")["examples"] == len(SPLITS["test"])
    assert data_of(folder, "csv-v1")["examples"] == len(SPLITS["train"]) - 2


def test_a_data_set_that_cannot_be_had_is_refused(hub, online):
    one_line(online["no such split"], "some/csv:nosuch", "it has train, test; write some/csv:SPLIT")
    one_line(online["no such revision of data"], "some/csv@v2", "it has no revision v2")
    one_line(online["gated data"], f"accept its terms at {hub.url}/datasets/some/secret", "hf auth login")
    one_line(online["absent data"], "some/nothing", f"{hub.url} has no such data set, or it is private")


def test_an_interrupted_download_of_data_is_finished_by_the_next_run(hub, folder, online, with_token):
    one_line(online["cut data"], "some/cut", f"the download from {hub.url} failed", "run the command again")
    is_done(with_token["cut data"])
    assert data_of(folder, "cut")["examples"] == len(SPLITS["train"])


# without a hub ----------------------------------------------------------------------------------


def test_with_the_cache_alone_nothing_is_asked(folder, offline):
    done, requests = offline
    assert requests == []
    for name in CACHED:
        is_done(done[name])
    assert "labels bad, good" in done["revision"].output
    for name in ("jsonl", "csv-v1"):
        assert data_of(folder, f"{name}-cached")["fingerprint"] == data_of(folder, name)["fingerprint"]


def test_a_version_in_the_cache_is_not_taken_for_another(hub, offline):
    done, _ = offline
    main, other = (hub.repositories["datasets/some/csv"].commit_of(name) for name in ("main", "v1"))
    one_line(done["csv"], "some/csv", f"is of commit {other}, and main is {main}; remove /")


def test_what_the_cache_lacks_is_told_in_one_line(offline):
    done, _ = offline
    for name, source in (
        ("absent", "some/absent"),
        ("pickle", "some/pickle"),
        ("absent data", "some/nothing"),
    ):
        one_line(done[name], source, "not in the hub's cache", "HF_HUB_OFFLINE is set", "unset it")


def test_without_a_connection_the_cache_is_used_and_the_rest_refused_soon(without_hub):
    done, url = without_hub
    for name in CACHED:
        is_done(done[name])
    for name, source in (
        ("absent", "some/absent"),
        ("pickle", "some/pickle"),
        ("absent data", "some/nothing"),
    ):
        one_line(done[name], source, f"{url} does not answer (Connection refused)", "HF_ENDPOINT")
        assert done[name].seconds < SOON
