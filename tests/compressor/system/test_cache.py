"""Where the cache is, and what becomes of it where nobody may write."""

import pytest

import compressor.system.cache as module
from compressor.errors import UserError
from compressor.system.cache import cache_directory, cache_folder, cache_note


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """No cache is named, and none was looked for."""
    for name in ("COMPRESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    module._writable.cache_clear()
    module._temporary.cache_clear()
    yield
    module._writable.cache_clear()
    module._temporary.cache_clear()


def without_home(monkeypatch, tmp_path):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(module.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))


def home_is_a_file(monkeypatch, tmp_path):
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def home_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/proc")


def cache_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/cache")


UNWRITABLE = [without_home, home_is_a_file, home_cannot_be_written, cache_cannot_be_written]


@pytest.mark.parametrize("circumstances", UNWRITABLE)
def test_where_no_place_can_be_written_a_temporary_one_serves_with_a_note(
    monkeypatch, tmp_path, circumstances
):
    circumstances(monkeypatch, tmp_path)
    folder = cache_folder("word_vectors")
    (folder / "a file").write_text("kept")
    assert cache_folder("word_vectors") == folder
    note = cache_note()
    assert str(cache_directory()) in note
    assert "COMPRESS_CACHE" in note
    module._temporary().cleanup()
    assert not folder.exists()


def test_the_user_s_cache_needs_no_note(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "compress"
    assert cache_note() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert cache_folder("a", "b") == tmp_path / "other" / "compress" / "a" / "b"


def test_a_cache_that_is_named_and_cannot_be_written_is_a_user_error(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPRESS_CACHE", "/proc/cache")
    assert cache_note() is None
    with pytest.raises(UserError, match=r"/proc/cache/x: cannot be written: .*; set COMPRESS_CACHE"):
        cache_folder("x")


def test_without_any_place_the_error_names_the_way_out(monkeypatch, tmp_path):
    def fail(**_):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", fail)
    with pytest.raises(UserError, match="set COMPRESS_CACHE, or TMPDIR"):
        cache_directory()
