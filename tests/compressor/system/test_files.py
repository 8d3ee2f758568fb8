"""Results appear whole or not at all, and nothing that is not ours is ever replaced."""

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from project import ROOT

from compressor.errors import UserError
from compressor.system.files import (
    MARKER,
    atomic_directory,
    check_replaceable,
    check_space,
    is_disk_full,
    read_json,
    sha256_of,
    write_json,
)

Usage = namedtuple("Usage", "total used free")


def contents(folder: Path) -> dict[str, bytes]:
    """All files but markers."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MARKER]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A result of ours that is there already."""
    with atomic_directory(tmp_path / "out") as working:
        (working / "pruning.json").write_text("{}")
        (working / "old.txt").write_text("old")
    return tmp_path / "out"


def test_the_folder_appears_when_the_block_ends(tmp_path):
    with atomic_directory(tmp_path / "out") as working:
        (working / "a.txt").write_text("a")
        assert not (tmp_path / "out").exists()
        assert working.parent == tmp_path
    assert contents(tmp_path) == {"out/a.txt": b"a"}


def test_parents_are_made(tmp_path):
    with atomic_directory(tmp_path / "x" / "y" / "out") as working:
        (working / "a.txt").write_text("a")
    assert contents(tmp_path) == {"x/y/out/a.txt": b"a"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, UserError])
def test_any_exception_leaves_nothing(tmp_path, error):
    with pytest.raises(error), atomic_directory(tmp_path / "x" / "y" / "out") as working:
        (working / "sub").mkdir()
        (working / "sub" / "a.txt").write_text("a")
        raise error
    assert not any(tmp_path.iterdir())


def test_parents_that_hold_something_else_stay(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError), atomic_directory(tmp_path / "x" / "y" / "out"):
        (tmp_path / "x" / "mine.txt").write_text("mine")
        raise ValueError
    assert contents(tmp_path) == {"x/mine.txt": b"mine"}
    assert not (tmp_path / "x" / "y").exists()


def test_an_earlier_result_is_refused_without_force(earlier):
    with pytest.raises(UserError, match="exists; choose another --output, or replace it with --force"):
        atomic_directory(earlier).__enter__()
    assert set(contents(earlier)) == {"pruning.json", "old.txt"}


def test_force_replaces_an_earlier_result_whole(earlier):
    with atomic_directory(earlier, force=True) as working:
        (working / "new.txt").write_text("new")
        assert (earlier / "old.txt").exists()
    assert contents(earlier.parent) == {"out/new.txt": b"new"}
    assert [path.name for path in earlier.parent.iterdir()] == ["out"]


def test_force_and_an_exception_leave_the_earlier_result(earlier):
    with pytest.raises(ValueError), atomic_directory(earlier, force=True) as working:
        (working / "new.txt").write_text("new")
        raise ValueError
    assert contents(earlier.parent) == {"out/pruning.json": b"{}", "out/old.txt": b"old"}


def test_a_rename_that_fails_leaves_the_earlier_result(earlier, monkeypatch):
    rename = Path.rename

    def fail_for_the_new(self, target):
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError), atomic_directory(earlier, force=True) as working:
        (working / "new.txt").write_text("new")
    assert contents(earlier.parent) == {"out/pruning.json": b"{}", "out/old.txt": b"old"}


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_others_is_never_replaced(tmp_path, force):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=str(tmp_path)):
        check_replaceable(tmp_path, force)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    with atomic_directory(tmp_path / "out") as working:
        (working / "a.txt").write_text("a")
    assert contents(tmp_path) == {"out/a.txt": b"a"}


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_refused(tmp_path, force):
    (tmp_path / "out").write_text("file")
    with pytest.raises(UserError, match="exists and is not a directory"):
        check_replaceable(tmp_path / "out", force)


@pytest.mark.parametrize("target", ["real", "nowhere"])
def test_a_symlink_is_refused_and_not_followed(tmp_path, target):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "pruning.json").write_text("{}")
    (tmp_path / "out").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match="exists and is not a directory"):
        atomic_directory(tmp_path / "out", force=True).__enter__()
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "pruning.json").exists()


@pytest.mark.parametrize("below", ["out", "sub/out"])
def test_an_output_below_a_file_is_a_user_error(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        atomic_directory(tmp_path / "file" / below).__enter__()


def test_permissions_are_those_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_directory(tmp_path / "out") as working:
            (working / "a.txt").write_text("a")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "out" / "a.txt").stat().st_mode) == 0o640


# disk space -------------------------------------------------------------------------------------


def test_too_little_space_is_an_error_before_anything_is_made(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(Path(path))
        return Usage(10**9, 10**9 - 5 * 10**6, 5 * 10**6)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    output = tmp_path / "x" / "y" / "out"
    with pytest.raises(UserError, match="no space: 6 MB are needed, 5 MB are free on the disk of"):
        atomic_directory(output, needed_bytes=6 * 10**6).__enter__()
    assert asked == [tmp_path]
    assert not any(tmp_path.iterdir())
    check_space(output, 5 * 10**6)


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
from compressor.models.classifier import load_classifier, save_classifier
from compressor.errors import UserError
from compressor.system.files import atomic_directory

classifier = load_classifier(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try:
    with atomic_directory(Path(sys.argv[2])) as working:
        save_classifier(classifier, working)
except UserError as error:
    print(error)
    sys.exit(2)
"""


def test_a_full_disk_is_a_user_error_and_leaves_nothing(small_classifier_dir, tmp_path):
    output = tmp_path / "new" / "out"
    result = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(small_classifier_dir), str(output)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert result.returncode == 2, result.stderr
    assert result.stdout.strip() == f"{output}: no space left on its disk; nothing was written"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_by_number_text_and_cause(code):
    assert is_disk_full(OSError(code, "full"))
    assert is_disk_full(RuntimeError(f"I/O error: full (os error {code})"))
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = OSError(code, "full")
    assert is_disk_full(wrapped)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ValueError("28"), KeyboardInterrupt()])
def test_other_errors_are_no_full_disk(error):
    assert not is_disk_full(error)


# files ------------------------------------------------------------------------------------------


def test_json_round_trip_keeps_texts_readable(tmp_path):
    value = {"b": [1, 2.5, None, 1e300], "a": "größe", "c": "\\ud 😀"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "größe" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_has_not(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": value})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[NaN]", b"[-Infinity]", b"[1e999]", b'["\\ud800"]', b'{"\\uDC00": 1}'],
)
def test_what_could_not_be_written_as_json_is_a_user_error(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")


def test_sha256_is_hashlibs(tmp_path):
    content = json.dumps(list(range(10**5))).encode()
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
