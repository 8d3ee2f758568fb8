"""What the manifest finds is met with one line that names the file and the way out, whatever the command."""

import json
import re

import pytest
from broken_artifacts import CONFIG, GRAPH, READING, TOKENIZER, refusal, run

from compressor.models.manifest import MANIFEST
from exporters.packed import pack_directory


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("file", [GRAPH, CONFIG, TOKENIZER])
def test_a_file_that_is_not_as_exported_is_named(made, artifact, capsys, name, file):
    content = (artifact / file).read_bytes()
    (artifact / file).write_bytes(content[: len(content) // 2])
    line = refusal(name, made, artifact, capsys)
    assert line.startswith(f"{artifact / file}: is not the file that was exported")
    assert line.endswith("restore it, or create the artifact again")
    (artifact / file).unlink()
    line = refusal(name, made, artifact, capsys)
    assert line.startswith(f"{artifact / file}: is missing, though the manifest lists it; restore it")


@pytest.mark.parametrize("file", [GRAPH, CONFIG, TOKENIZER])
def test_verify_finds_what_is_not_as_exported(made, artifact, capsys, tmp_path, file):
    (artifact / file).write_bytes(b"")
    assert run("verify", made, artifact, tmp_path) == 1
    assert f"{artifact / file}: is not the file that was exported" in capsys.readouterr().out
    (artifact / file).unlink()
    assert run("verify", made, artifact, tmp_path) == 1
    assert f"{artifact / file}: is missing" in capsys.readouterr().out


BROKEN_MANIFESTS = {
    "missing": (None, "no such file"),
    "empty": (b"", "not valid JSON"),
    "cut": (b'{"files": {', "not valid JSON"),
    "not text": (b"\xff\xfe\x00", "not valid JSON"),
    "too deep": (b"[" * 100_000, "not valid JSON"),
    "too large a number": (b"1" * 10_000, "not valid JSON"),
    "a list": (b"[]", "lists no files"),
    "of something else": (b'{"name": "My App", "icons": []}', "lists no files"),
}


@pytest.mark.parametrize("name", [*READING, "verify"])
@pytest.mark.parametrize("breakage", BROKEN_MANIFESTS)
def test_a_broken_manifest_is_named(made, artifact, capsys, name, breakage):
    content, expected = BROKEN_MANIFESTS[breakage]
    (artifact / MANIFEST).unlink()
    if content is not None:
        (artifact / MANIFEST).write_bytes(content)
    line = refusal(name, made, artifact, capsys)
    assert line.startswith(f"{artifact / MANIFEST}: {expected}")
    assert line.endswith("export it again with: compress export")


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize(
    ("key", "value"),
    [("labels", None), ("labels", "fresh"), ("parity", []), ("parity", {"examples": 3}), ("lineage", {})],
)
def test_a_manifest_without_the_facts_of_an_export_is_named(made, artifact, capsys, name, key, value):
    manifest = json.loads((artifact / MANIFEST).read_text())
    (artifact / MANIFEST).write_text(json.dumps({**manifest, key: value}))
    line = refusal(name, made, artifact, capsys)
    assert re.match(rf"{re.escape(str(artifact / MANIFEST))}: has no {key}", line)
    assert line.endswith("export it again with: compress export")


@pytest.mark.parametrize("listed", ["a\0b", "x" * 300, "loop", ""])
def test_names_that_no_file_can_have_are_a_problem_of_the_manifest(made, artifact, capsys, tmp_path, listed):
    (artifact / "loop").symlink_to("loop")
    manifest = json.loads((artifact / MANIFEST).read_text())
    manifest["files"][listed] = {"sha256": "0" * 64, "bytes": 1}
    (artifact / MANIFEST).write_text(json.dumps(manifest))
    assert str(artifact) in refusal("inspect", made, artifact, capsys)
    assert run("verify", made, artifact, tmp_path) == 1


@pytest.mark.parametrize("name", READING)
def test_a_packed_classifier_names_its_way_out(made, tmp_path, capsys, name):
    (tmp_path / "here").mkdir()
    packed = tmp_path / "here" / "artifact"
    pack_directory(made / "dense", packed, force=False)
    assert "a packed classifier is restored with: compress unpack" in refusal(name, made, packed, capsys)
