"""The manifest finds every file that is changed, missing or not the artifact's own."""

import hashlib
import json

import pytest

from cli import execute
from compressor.errors import UserError
from compressor.models.manifest import MANIFEST, artifact_problems, read_manifest, write_manifest


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "sub" / "vocab.txt").write_text("words")
    write_manifest(folder, {"format": "onnx", "labels": ["größe", "b"]})
    return folder


def edit_files(folder, change):
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(manifest["files"])
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def test_lists_every_file_with_size_and_checksum(artifact):
    manifest = read_manifest(artifact)
    assert set(manifest["files"]) == {"model.onnx", "sub/vocab.txt"}
    assert manifest["files"]["model.onnx"] == {
        "sha256": hashlib.sha256(b"graph").hexdigest(),
        "bytes": 5,
    }
    assert manifest["schema_version"] == 1
    assert manifest["labels"] == ["größe", "b"]


def test_what_is_written_is_what_is_returned_and_read(tmp_path):
    (tmp_path / "a").write_text("a")
    assert write_manifest(tmp_path, {"seed": 3}) == read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "sub/vocab.txt"])
def test_a_changed_file_is_named(artifact, name):
    content = bytearray((artifact / name).read_bytes())
    content[0] ^= 1
    (artifact / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: is not the file that was exported"):
        read_manifest(artifact)


@pytest.mark.parametrize("name", ["model.onnx", "sub/vocab.txt"])
def test_a_missing_file_is_named(artifact, name):
    (artifact / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: is missing"):
        read_manifest(artifact)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "sub/../../outside", "sub/../model.onnx"])
def test_a_path_that_leads_out_is_refused(artifact, name):
    (artifact.parent / "outside").write_text("secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    edit_files(artifact, lambda files: files.update({name: {"sha256": digest, "bytes": 6}}))
    with pytest.raises(UserError, match="leads out of the artifact"):
        read_manifest(artifact)


def test_a_symlink_is_refused_though_its_content_fits(artifact, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"graph")
    (artifact / "model.onnx").unlink()
    (artifact / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of the artifact"):
        read_manifest(artifact)


def test_a_symlinked_folder_is_refused_though_its_content_fits(artifact, tmp_path):
    (artifact / "sub").rename(tmp_path / "elsewhere")
    (artifact / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of the artifact"):
        read_manifest(artifact)


def test_no_directory_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such artifact directory"):
        read_manifest(tmp_path / "none")


def test_no_manifest_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"manifest\.json: no such file"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "\x00", "[]", "3", "{}", '{"files": []}', '{"files": {"a": 1}}']
)
def test_a_broken_manifest_is_an_error(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json: (not valid JSON|lists no files)"):
        read_manifest(tmp_path)


def test_an_entry_without_checksum_does_not_pass(artifact):
    edit_files(artifact, lambda files: files["model.onnx"].pop("sha256"))
    with pytest.raises(UserError, match="its sha256 differs"):
        read_manifest(artifact)


def test_an_untouched_artifact_has_no_problems(artifact, capsys):
    assert artifact_problems(artifact) == []
    assert execute(["verify", str(artifact)]) == 0
    assert "every file is as it was exported" in capsys.readouterr().out


def test_all_problems_are_told_at_once(artifact, tmp_path, capsys):
    (artifact / "model.onnx").write_bytes(b"grapH")
    (artifact / "sub" / "vocab.txt").unlink()
    (artifact / "sub" / "added").write_text("new")
    (tmp_path / "elsewhere").mkdir()
    (artifact / "link").symlink_to(tmp_path / "elsewhere")
    edit_files(artifact, lambda files: files.update({"../outside": {"sha256": ""}}))
    problems = artifact_problems(artifact)
    assert [problem.rpartition("artifact/")[2].partition(":")[0] for problem in problems] == [
        "model.onnx",
        "sub/vocab.txt",
        "manifest.json",
        "link",
        "sub/added",
    ]
    assert execute(["verify", str(artifact), "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out) == {"ok": False, "problems": problems}
    assert "is not what was exported; problems: 5" in told.err


def test_an_added_file_does_not_keep_an_artifact_from_loading(artifact):
    (artifact / "notes.txt").write_text("ours")
    assert read_manifest(artifact)["labels"] == ["größe", "b"]
    assert len(artifact_problems(artifact)) == 1


def test_verify_of_what_is_no_artifact_is_bad_input(tmp_path, capsys):
    assert execute(["verify", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err
