"""Packing of whole directories: hub snapshots, shards, folders; all of it comes back byte for byte."""

import json
import re
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cli import execute
from compressor.errors import UserError
from compressor.inspection.stage import inspect_directory
from compressor.models.classifier import load_classifier, model_content, weights_fingerprint
from compressor.models.manifest import MANIFEST, artifact_problems, read_manifest, write_manifest
from compressor.models.weight_files import VOCABULARIES, digest_of_files, weight_files
from compressor.system.files import MARKER
from exporters.packed import PACKED, pack_directory, unpack_directory

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def content(folder):
    """The bytes of every file below a folder but its marker, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MARKER
    }


def as_snapshot(folder, cache):
    """The folder as the Hugging Face cache keeps it: every file a link to a blob."""
    snapshot = cache / "models--me--it" / "snapshots" / "abc"
    blobs = cache / "models--me--it" / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        shutil.copy(path, blobs / f"{number:040}")
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (2 + len(path.relative_to(folder).parts) - 1)
        link.symlink_to(f"{up}blobs/{number:040}")
    return snapshot


def in_shards(folder, count=3):
    """Its weights in several files, as transformers writes large models."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    weight_map = {}
    for part in range(count):
        file = f"model-{part + 1:05}-of-{count:05}.safetensors"
        own = {name: tensors[name] for name in names[part::count]}
        save_file(own, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(own, file)
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return folder


def in_folders(folder):
    (folder / "onnx" / "old").mkdir(parents=True)
    (folder / "onnx" / "old" / "notes.txt").write_text("ours")
    (folder / "onnx" / MANIFEST).write_text("{}")
    (folder / "README.md").write_text("# A card")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    return folder


def with_another_header(folder):
    """As another writer lays a file out: the tensors in another order, spaces after the header."""
    tensors = load_file(folder / WEIGHTS)
    entries, data = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(tensors, reverse=True):
        raw = tensors[name].numpy().tobytes()
        entries[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    header = json.dumps(entries).encode() + b"   "
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + data)
    return folder


@pytest.fixture
def model(made, tmp_path):
    return Path(shutil.copytree(made / "dense", tmp_path / "model"))


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("change", [lambda folder: folder, in_shards, in_folders, with_another_header])
def test_every_file_comes_back_byte_for_byte(model, tmp_path, change, linked):
    change(model)
    source = as_snapshot(model, tmp_path / "hub") if linked else model
    pack_directory(source, tmp_path / "packed", force=False)
    assert not any(path.is_symlink() for path in (tmp_path / "packed").rglob("*"))
    assert artifact_problems(tmp_path / "packed") == []
    unpack_directory(tmp_path / "packed", tmp_path / "again", force=False)
    assert content(tmp_path / "again") == content(model)
    load_classifier(str(tmp_path / "again"))


def test_a_linked_snapshot_is_the_same_model_as_its_copy(model, tmp_path):
    snapshot = as_snapshot(in_shards(model), tmp_path / "hub")
    assert model_content(str(snapshot)) == model_content(str(model))
    assert weights_fingerprint(str(snapshot)) == weights_fingerprint(str(model))


def test_shards_have_a_digest_that_follows_their_content(model, tmp_path):
    in_shards(model)
    first = weights_fingerprint(str(model))
    assert re.fullmatch("[0-9a-f]{64}", first)
    manifest = pack_directory(model, tmp_path / "packed", force=False).model_dump()
    assert manifest["lineage"]["weights_sha256"] == first
    assert inspect_directory(str(model))["size_bytes"] == sum(f.stat().st_size for f in weight_files(model))
    shard = weight_files(model)[1]
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    assert weights_fingerprint(str(model)) != first


def test_shards_in_the_cache_have_the_same_digest(model, tmp_path, monkeypatch):
    snapshot = as_snapshot(in_shards(model), tmp_path / "hub")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda _, name, **__: str(snapshot / name) if (snapshot / name).exists() else None,
    )
    assert weights_fingerprint("me/it") == digest_of_files(weight_files(model))
    (snapshot / weight_files(model)[0].name).unlink()
    assert weights_fingerprint("me/it") is None


def test_a_whole_file_is_taken_before_shards(model):
    whole = (model / WEIGHTS).read_bytes()
    in_shards(model)
    (model / WEIGHTS).write_bytes(whole)
    assert weight_files(model) == [model / WEIGHTS]


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("{", "is no index of shards"),
        ("[]", "is no index of shards"),
        ('{"weight_map": {}}', "lists no files"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "is no safetensors file beside it"),
        ('{"weight_map": {"a": "pytorch_model.bin"}}', "is no safetensors file beside it"),
        ('{"weight_map": {"a": 3}}', "is no safetensors file beside it"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors: is missing"),
    ],
)
def test_a_broken_index_is_named(model, tmp_path, index, says):
    in_shards(model)
    (model / INDEX).write_text(index)
    with pytest.raises(UserError, match=says):
        pack_directory(model, tmp_path / "packed", force=False)


def link_to(target):
    def change(model):
        (model / "notes").symlink_to(target)

    return change


def linked_folder(model):
    (model.parent / "elsewhere").mkdir()
    (model / "sub").symlink_to(model.parent / "elsewhere")


def linked_weights(model):
    shutil.move(model / WEIGHTS, model.parent / "weights")
    (model / WEIGHTS).symlink_to(model.parent / "weights")


UNSAFE = {
    "a secret": (link_to("/etc/passwd"), "notes: is a link that leads out of the directory"),
    "upwards": (link_to("../secret"), "notes: is a link that leads out of the directory"),
    "nowhere": (link_to("gone"), "notes: is no file, or a link to none"),
    "itself": (link_to("notes"), "notes: "),
    "a folder": (linked_folder, "sub: is a link that leads out of the directory"),
    "weights": (linked_weights, "model.safetensors: is a link that leads out of the directory"),
    "our name": (lambda model: (model / MANIFEST).write_text("{}"), "a file that packing writes"),
    "no configuration": (lambda model: (model / "config.json").unlink(), "has no config.json"),
    "no vocabulary": (
        lambda model: [(model / name).unlink(missing_ok=True) for name in VOCABULARIES],
        "has no tokenizer.json and no vocab.txt",
    ),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_what_cannot_be_packed_whole_is_refused_by_name(model, tmp_path, capsys, case):
    change, says = UNSAFE[case]
    change(model)
    assert execute(["pack", str(model), "--output", str(tmp_path / "packed")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {model}")
    assert says in line
    assert not (tmp_path / "packed").exists()


def test_a_snapshots_link_past_its_blobs_is_refused(model, tmp_path):
    snapshot = as_snapshot(model, tmp_path / "hub")
    (tmp_path / "hub" / "models--me--it" / "secret").write_text("secret")
    (snapshot / "notes").symlink_to("../../secret")
    with pytest.raises(UserError, match="notes: is a link that leads out"):
        pack_directory(snapshot, tmp_path / "packed", force=False)
    (snapshot / "notes").unlink()
    (tmp_path / "hub" / "models--me--it" / "blobs" / "out").symlink_to("/etc/passwd")
    (snapshot / "notes").symlink_to("../../blobs/out")
    with pytest.raises(UserError, match="notes: is a link that leads out"):
        pack_directory(snapshot, tmp_path / "packed", force=False)


def test_a_link_within_the_directory_is_packed_as_a_file(model, tmp_path):
    (model / "copy.json").symlink_to("config.json")
    pack_directory(model, tmp_path / "packed", force=False)
    assert (tmp_path / "packed" / "copy.json").read_bytes() == (model / "config.json").read_bytes()


def test_hidden_folders_are_left_out_and_named(model, tmp_path, capsys):
    (model / ".git").mkdir()
    (model / ".git" / "HEAD").write_text("ref")
    assert execute(["pack", str(model), "--output", str(tmp_path / "packed")]) == 0
    assert "left out: .git" in capsys.readouterr().out
    assert read_manifest(tmp_path / "packed")["left_out"] == [".git"]
    assert not (tmp_path / "packed" / ".git").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "onnx/old/notes.txt"])
def test_verify_finds_what_is_gone_from_a_packed_model(model, tmp_path, name):
    pack_directory(in_folders(model), tmp_path / "packed", force=False)
    (tmp_path / "packed" / name).unlink()
    assert artifact_problems(tmp_path / "packed") == [
        f"{tmp_path / 'packed' / name}: is missing, though the manifest lists it"
    ]


def test_verify_finds_that_a_packed_model_never_had_its_configuration(model, tmp_path):
    pack_directory(model, tmp_path / "packed", force=False)
    for path in (tmp_path / "packed").iterdir():
        if path.name != PACKED:
            path.unlink()
    write_manifest(tmp_path / "packed", {"format": "packed"})
    found = artifact_problems(tmp_path / "packed")
    assert [line.rpartition("lists no ")[2].partition(";")[0] for line in found] == [
        "config.json",
        "tokenizer.json and no vocab.txt and no vocab.json",
    ]


def test_what_was_packed_before_shards_were_taken_is_restored(model, tmp_path):
    packed = tmp_path / "packed"
    pack_directory(model, packed, force=False)
    with safe_open(packed / PACKED, framework="pt") as file:
        header = json.loads(file.metadata()["packed"])
    del header["files"]
    header["metadata"] = {"format": "pt"}
    save_file(load_file(packed / PACKED), packed / PACKED, metadata={"packed": json.dumps(header)})
    (packed / MANIFEST).unlink()
    write_manifest(packed, {"format": "packed"})
    unpack_directory(packed, tmp_path / "again", force=False)
    assert content(tmp_path / "again") == content(model)


@pytest.mark.parametrize("name", ["../out.safetensors", "config.json", "/out.safetensors"])
def test_a_packed_file_names_nothing_outside_its_directory(model, tmp_path, name):
    packed = tmp_path / "packed"
    pack_directory(model, packed, force=False)
    with safe_open(packed / PACKED, framework="pt") as file:
        header = json.loads(file.metadata()["packed"])
    header["files"] = {name: header["files"][WEIGHTS]}
    save_file(load_file(packed / PACKED), packed / PACKED, metadata={"packed": json.dumps(header)})
    (packed / MANIFEST).unlink()
    write_manifest(packed, {"format": "packed"})
    with pytest.raises(UserError, match="is no name of a file of weights"):
        unpack_directory(packed, tmp_path / "again", force=False)


def test_one_tensor_in_two_shards_is_refused(model, tmp_path):
    in_shards(model)
    first, second = weight_files(model)[:2]
    tensors = load_file(first)
    name = next(iter(tensors))
    save_file(load_file(second) | {name: torch.zeros(2)}, second)
    with pytest.raises(UserError, match=f"holds {re.escape(name)}, which another shard holds as well"):
        pack_directory(model, tmp_path / "packed", force=False)


def test_an_artifact_in_the_cache_is_whole_and_loads(artifact, made, tmp_path, capsys):
    snapshot = as_snapshot(artifact, tmp_path / "hub")
    assert artifact_problems(snapshot) == []
    assert execute(["verify", str(snapshot)]) == 0
    options = ["--padding-multiple", "8", "--output", str(tmp_path / "triton")]
    assert execute(["triton", str(snapshot), *options]) == 0
    assert not any(path.is_symlink() for path in (tmp_path / "triton").rglob("*"))
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(made / "dense" / "tokenizer.json")
    assert execute(["verify", str(snapshot)]) == 1
    assert "tokenizer.json' leads out of the artifact" in capsys.readouterr().out
