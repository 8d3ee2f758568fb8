"""Outputs are claimed before the work, by one command at a time, and nothing of others is ever removed."""

import json
import os
import shutil
import string
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.errors import UserError
from compressor.options import ColumnsConfig, RunConfig
from compressor.system import claims, durable, places
from compressor.system.claims import (
    atomic_directory,
    claim,
    claims_output,
    paths_in,
    scratch_directory,
)
from compressor.system.console import SilentProgress
from compressor.system.context import Context
from compressor.system.markers import MARKER, contents, read_marker, remove_own
from compressor.system.places import check_replaceable, place_of
from compressor.system.replacing import make_scratch

# What other tools call the files of their projects, too.
COMMON = ["manifest.json", "recipe.yaml", "report.json", "pruning.json", "stages.json", "config.json"]


def make(output: Path, text: str = "old", **options) -> Path:
    with atomic_directory(output, **options) as working:
        (working / "model.txt").write_text(text)
        (working / "sub").mkdir()
        (working / "sub" / "more.txt").write_text(text)
    return output


def files(folder: Path) -> dict[str, str]:
    """All files below a folder but markers."""
    found = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_text() for p in found if p.name != MARKER}


def in_child(function, *arguments):
    """What a function of this module returns in a process of its own."""
    with get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


# What may be replaced ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMON)
def test_no_name_of_a_file_makes_a_folder_ours(tmp_path, name):
    output = tmp_path / "project"
    output.mkdir()
    (output / name).write_text('{"name": "shop"}')
    (output / "index.html").write_text("mine")
    for force in (False, True):
        with pytest.raises(UserError, match="not replaced, since it has no" if force else "exists"):
            make(output, force=force)
    assert set(files(output)) == {name, "index.html"}


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 1}', "\udcff", "marker of another"])
def test_a_file_of_the_markers_name_is_not_enough(tmp_path, text):
    output = make(tmp_path / "out")
    if text == "marker of another":
        facts = json.loads((output / MARKER).read_text())
        text = json.dumps({**facts, "written_by": "other 1.0"})
    (output / MARKER).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match="not replaced, since it has no"):
        check_replaceable(output, force=True)


@pytest.mark.parametrize("listed", ["../thesis.tex", "/etc/passwd", "sub/../../thesis.tex", ""])
def test_a_marker_that_lists_what_is_outside_is_none(tmp_path, listed):
    (tmp_path / "thesis.tex").write_text("years of work")
    output = make(tmp_path / "out")
    facts = json.loads((output / MARKER).read_text())
    (output / MARKER).write_text(json.dumps({**facts, "files": [listed]}))
    with pytest.raises(UserError, match="not replaced, since it has no"):
        make(output, force=True)
    remove_own(output)
    assert (tmp_path / "thesis.tex").exists()
    assert (output / "model.txt").exists()


@pytest.mark.parametrize("foreign", ["notes.txt", "sub/notes.txt", "own/deep/notes.txt", ".git/HEAD", "link"])
def test_force_does_not_remove_what_somebody_added(tmp_path, foreign):
    output = make(tmp_path / "out")
    path = output / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    if foreign == "link":
        path.symlink_to(tmp_path)
    else:
        path.write_text("mine")
    with pytest.raises(UserError, match=f"compress did not write {foreign} in it; move that elsewhere"):
        make(output, force=True)
    assert path.exists()
    assert (output / "model.txt").read_text() == "old"


def test_a_result_in_a_result_is_not_replaced_with_it(tmp_path):
    output = make(tmp_path / "out")
    make(output / "validation")
    with pytest.raises(UserError, match="compress did not write validation in it"):
        make(output, force=True)


def test_a_result_made_of_results_is_replaced(tmp_path):
    with atomic_directory(tmp_path / "out") as working:
        make(working / "attack" / "dense")
    make(tmp_path / "out", "new", force=True)
    assert files(tmp_path) == {"out/model.txt": "new", "out/sub/more.txt": "new"}


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_a_marker_travels_with_its_result(tmp_path, how):
    output = make(tmp_path / "out")
    (shutil.copytree if how == "copied" else shutil.move)(output, tmp_path / "other")
    make(tmp_path / "other", "new", force=True)
    assert files(tmp_path / "other")["model.txt"] == "new"


NAMES = st.text(string.ascii_letters + "._- [*", min_size=1, max_size=8).filter(lambda n: n.strip("."))
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.none(), max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(foreign=TREES, ours=TREES)
def test_only_what_is_listed_is_removed_whatever_lies_beside_it(tmp_path_factory, foreign, ours):
    folder = tmp_path_factory.mktemp("tree")
    output = folder / "out"
    with atomic_directory(output) as working:
        own = {name for name in ours if _written(working / name, "own")}
    added = {name for name in foreign if not (output / name).exists() and _written(output / name, "mine")}
    if added:
        with pytest.raises(UserError, match="compress did not write"):
            make(output, force=True)
        assert set(files(output)) == own | added
        remove_own(output)
        assert set(files(output)) == added
    else:
        make(output, "new", force=True)
        assert set(files(output)) == {"model.txt", "sub/more.txt"}


def _written(path: Path, text: str) -> bool:
    """Whether a file could be written at a drawn path."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError:
        return False
    return True


# Locks ------------------------------------------------------------------------------------------


def attempt(output: Path, force: bool = False) -> str:
    claims._CLAIMS.set(())
    try:
        with claim(output, force=force):
            return "claimed"
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("force", [False, True])
def test_a_second_command_is_refused_at_once_and_told_by_whom(tmp_path, force):
    with claim(tmp_path / "out"):
        refused = in_child(attempt, tmp_path / "out", force)
        assert f"another command is writing to it (process {os.getpid()} on " in refused
        assert in_child(attempt, tmp_path / "other") == "claimed"
    assert in_child(attempt, tmp_path / "out", force) == "claimed"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("other", ["out/", "sub/../out", "link/out"])
def test_an_output_is_the_same_by_another_path(tmp_path, other):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    with claim(tmp_path / "out"):
        assert "another command is writing" in in_child(attempt, Path(f"{tmp_path}/{other}"))


def test_the_folder_itself_is_locked_however_it_is_reached(tmp_path, monkeypatch):
    output = tmp_path / "out"
    output.mkdir()
    with claim(output):
        monkeypatch.chdir(output)
        assert "another command is writing" in in_child(attempt, Path())


def _end_in_the_middle(output: Path) -> None:
    with atomic_directory(output) as working:
        (working / "half.txt").write_text("half")
        os._exit(0)


def test_what_a_killed_command_left_goes_with_the_next_one(tmp_path):
    process = get_context("fork").Process(target=_end_in_the_middle, args=(tmp_path / "out",))
    process.start()
    process.join()
    left = {path.name.rpartition(".")[2] for path in tmp_path.iterdir()}
    assert left == {"partial", "compress-lock"}
    theirs = [
        tmp_path / ".out.partial",
        tmp_path / ".out.0123abcd.partial",
        tmp_path / ".out.x.89abcdef.partial",
    ]
    for path in theirs:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    make(tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == sorted([*theirs, tmp_path / "out"])


def test_a_result_that_was_moved_away_by_a_killed_command_comes_back(tmp_path):
    output = make(tmp_path / "out")
    container = make_scratch(place_of(output), "old")
    output.rename(container / "old")
    with claim(output, force=True):
        assert files(output)["model.txt"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_lock_is_not_written_over_a_file_of_others(tmp_path):
    lock = place_of(tmp_path / "out").lock
    lock.write_text("mine")
    with pytest.raises(UserError, match="is not a lock of compress"):
        make(tmp_path / "out")
    assert lock.read_text() == "mine"


def test_a_folder_in_which_another_command_works_is_not_replaced(tmp_path):
    output = make(tmp_path / "out", grows=["pruned/"])
    with claim(output / "pruned"), pytest.raises(UserError, match="another command is writing to it"):
        make(output, force=True)
    make(output, "new", force=True)


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, capsys):
    def none(descriptor, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    make(tmp_path / "out")
    assert "its file system has no locks (Function not implemented)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_claim_leaves_nothing_on_any_exception(tmp_path, error):
    with pytest.raises(error), claim(tmp_path / "x" / "out"), scratch_directory(tmp_path / "x" / "out"):
        raise error
    assert not any(tmp_path.iterdir())


# What appears meanwhile -------------------------------------------------------------------------


@pytest.mark.parametrize("appears", ["file", "folder", "empty folder", "link", "result"])
def test_what_appears_meanwhile_is_not_replaced_and_the_result_is_kept(tmp_path, appears):
    output = tmp_path / "out"
    kept = pytest.raises(UserError, match=r"appeared while the command worked.*kept in .*out\.kept")
    with kept, claim(output), atomic_directory(output, force=True) as working:
        (working / "model.txt").write_text("new")
        if appears == "file":
            output.write_text("mine")
        elif appears == "link":
            output.symlink_to(tmp_path)
        elif appears == "result":
            make(tmp_path / "other" / "out").rename(output)
        else:
            output.mkdir()
            if appears == "folder":
                (output / "notes.txt").write_text("mine")
    assert files(tmp_path / "out.kept") == {"model.txt": "new"}
    assert read_marker(tmp_path / "out.kept") is not None
    if appears == "folder":
        assert files(output) == {"notes.txt": "mine"}
    assert os.path.lexists(output)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_is_added_to_a_result_meanwhile_stays(tmp_path):
    output = make(tmp_path / "out")
    (tmp_path / "out.kept").write_text("mine")
    kept = pytest.raises(UserError, match=r"got other files while the command worked.*out\.kept-2")
    with kept, atomic_directory(output, force=True) as working:
        (working / "model.txt").write_text("new")
        (output / "notes.txt").write_text("mine")
    assert files(output) == {"model.txt": "old", "sub/more.txt": "old", "notes.txt": "mine"}
    assert files(tmp_path / "out.kept-2") == {"model.txt": "new"}


def test_what_appears_at_the_last_moment_is_not_replaced(tmp_path, monkeypatch):
    output = tmp_path / "out"
    rename = Path.rename

    def appears(self, target):
        if target == output:
            monkeypatch.setattr(Path, "rename", rename)
            output.mkdir()
            (output / "notes.txt").write_text("mine")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", appears)
    with pytest.raises(UserError, match=r"kept in .*out\.kept"):
        make(output, "new")
    assert files(output) == {"notes.txt": "mine"}
    assert files(tmp_path / "out.kept")["model.txt"] == "new"


# Places -----------------------------------------------------------------------------------------


@pytest.fixture(params=["working directory", "mount point"])
def fixed(request, tmp_path, monkeypatch):
    """A directory that cannot be exchanged for another one, and the path that it is given by."""
    folder = tmp_path / "here"
    folder.mkdir()
    if request.param == "working directory":
        monkeypatch.chdir(folder)
        return folder, Path()
    monkeypatch.setattr(places, "is_mount_point", lambda path: path == folder)
    return folder, folder


def test_a_directory_that_stays_is_written_into_and_replaced(fixed):
    folder, output = fixed
    inode = folder.stat().st_ino
    make(output)
    assert files(folder) == {"model.txt": "old", "sub/more.txt": "old"}
    with pytest.raises(UserError, match="exists"):
        make(output)
    make(output, "new", force=True)
    assert files(folder) == {"model.txt": "new", "sub/more.txt": "new"}
    assert folder.stat().st_ino == inode
    assert {path.name for path in folder.iterdir()} == {"model.txt", "sub", MARKER}
    assert [path.name for path in folder.parent.iterdir()] == ["here"]
    assert contents(folder).foreign == []


def test_a_directory_that_stays_is_as_it_was_if_a_move_fails(fixed, monkeypatch):
    folder, output = fixed
    make(output)
    before = (folder / MARKER).read_text()
    rename = Path.rename

    def fails(self, target):
        if self.name == "sub" and ".partial" in str(self):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError):
        make(output, "new", force=True)
    assert files(folder) == {"model.txt": "old", "sub/more.txt": "old"}
    assert (folder / MARKER).read_text() == before


def test_a_directory_that_stays_is_not_whole_until_its_marker_says_so(fixed, monkeypatch):
    folder, output = fixed
    seen = []
    rename = Path.rename

    def look(self, target):
        if target.parent == folder:
            seen.append(read_marker(folder).whole)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look)
    make(output)
    assert seen == [False, False]
    assert read_marker(folder).whole


def test_files_that_somebody_adds_to_a_directory_that_stays_are_not_touched(fixed):
    folder, output = fixed
    kept = pytest.raises(UserError, match=r"got other files.*compress\.kept")
    with kept, atomic_directory(output) as working:
        (working / "model.txt").write_text("new")
        (folder / "model.txt").write_text("mine")
    assert (folder / "model.txt").read_text() == "mine"
    assert files(folder / "compress.kept") == {"model.txt": "new"}


def test_what_belongs_to_a_directory_that_stays_is_in_it_and_not_in_the_way(fixed):
    folder, output = fixed
    assert place_of(output).beside("progress").parent == folder
    with claim(output), scratch_directory(output):
        check_replaceable(output, force=False)
        assert "another command is writing" in in_child(attempt, output)


def test_mount_points_of_the_same_disk_are_known(tmp_path, monkeypatch):
    table = tmp_path / "mountinfo"
    table.write_text("36 35 98:0 /mnt1 /mnt/with\\040space rw - ext3 /dev/root rw\nbroken\n")
    monkeypatch.setattr(places, "_MOUNTS", table)
    assert places.is_mount_point(Path("/mnt/with space"))
    assert not places.is_mount_point(tmp_path)
    assert places.is_mount_point(Path("/"))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("output", ["..", "/", "../..", "."])
def test_directories_above_are_refused_before_anything_is_made(tmp_path, monkeypatch, output, force):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(UserError, match="not replaced" if force else "exists"):
        claim(Path(output), force=force).__enter__()
    assert files(tmp_path) == {"a/b/mine.txt": "mine"}


def test_a_result_that_one_works_in_is_not_replaced(tmp_path, monkeypatch):
    output = make(tmp_path / "out")
    monkeypatch.chdir(output / "sub")
    with pytest.raises(UserError, match="holds the working directory"):
        make(output, force=True)


@pytest.mark.parametrize("name", ["x" * 250, "ä" * 120])
def test_a_name_without_room_for_hidden_ones_is_refused_at_once(tmp_path, name):
    with pytest.raises(UserError, match="too long"):
        claim(tmp_path / name).__enter__()
    assert not any(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    def refuse(path, flags, mode=0o777):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"cannot be written: .*Permission denied"):
        claim(tmp_path / "out").__enter__()


# Stages -----------------------------------------------------------------------------------------


@claims_output
def stage(model: str, output: Path, *, force: bool, more: object = None) -> list[str]:
    del model, more
    return sorted(path.name for path in output.parent.iterdir())


def test_a_stage_holds_its_output_while_it_works(tmp_path):
    assert stage("model", tmp_path / "out", force=False) == [".out.compress-lock"]
    assert not any(tmp_path.iterdir())


def test_a_stage_with_a_context_holds_the_output_of_that(tmp_path):
    @claims_output
    def in_context(model: str, context: Context) -> list[str]:
        return stage.__wrapped__(model, context.output, force=False)

    texts = make(tmp_path / "out") / "model.txt"
    context = Context(
        output=tmp_path / "out",
        columns=ColumnsConfig(),
        run=RunConfig(),
        progress=SilentProgress(),
        force=True,
    )
    assert in_context("model", context) == [".out.compress-lock", "out"]
    with pytest.raises(UserError, match=r"holds .*, which the command reads; choose another --output"):
        in_context(str(texts), context)
    with pytest.raises(UserError, match="exists"):
        in_context("model", replace(context, force=False))


@pytest.mark.parametrize("held", ["out", "out/sub", "out/sub/more.txt", "link"])
def test_what_a_stage_reads_is_not_replaced(tmp_path, held):
    output = make(tmp_path / "out")
    (tmp_path / "link").symlink_to(output)
    for given_as in ({"model": str(tmp_path / held)}, {"model": "m", "more": {"a": [tmp_path / held]}}):
        with pytest.raises(UserError, match=r"holds .*, which the command reads; choose another --output"):
            stage(**given_as, output=output, force=True)
    assert stage(str(tmp_path / "elsewhere"), output, force=True)


def test_only_the_first_rank_claims(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert stage("model", tmp_path / "out", force=False) == []


def test_paths_are_found_in_options_and_jobs(tmp_path):
    from compressor.options import AttackConfig

    (tmp_path / "vectors.npz").write_text("")
    config = AttackConfig(word_vectors=str(tmp_path / "vectors.npz"))
    assert list(paths_in([config, 3, None, "no\0path"])) == [tmp_path / "vectors.npz"]


# Power cuts -------------------------------------------------------------------------------------


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    rename = Path.rename

    def flushed(descriptor):
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def renamed(self, target):
        steps.append(f"-> {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    make(tmp_path / "out")
    place = steps.index("-> out")
    assert {"model.txt", "more.txt", MARKER, "sub"} <= set(steps[:place])
    assert steps[place + 1 :] == [tmp_path.name]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    replace = Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: (steps.append(f"-> {to.name}"), replace(self, to)))
    durable.write_whole(tmp_path / "a.txt", "a")
    assert steps[0].startswith(".a.txt.")
    assert steps[1:] == ["-> a.txt", tmp_path.name]


def test_an_exclusive_file_replaces_nothing(tmp_path):
    durable.write_whole(tmp_path / "a.txt", "first", exclusive=True)
    with pytest.raises(FileExistsError):
        durable.write_whole(tmp_path / "a.txt", "second", exclusive=True)
    assert files(tmp_path) == {"a.txt": "first"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_that_is_not_finished_leaves_nothing(tmp_path, error):
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(error), durable.replaced_file(tmp_path / "a.txt") as working:
        working.write_text("half")
        raise error
    assert files(tmp_path) == {"a.txt": "before"}
