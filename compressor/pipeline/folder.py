"""The folder of a run: which of its stages are done, with what, and which of them a recipe can reuse.

`stages.json` holds, of each finished stage, the facts that its key is made of and a checksum of what it
wrote; and which stage was begun last. A stage is reused if its key is the same, its output is as it was
written, and no stage that it follows runs again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from compressor.errors import UserError
from compressor.pipeline.keys import ARTIFACT, ATTACK, DENSE, PRUNED, REPORTS, SEARCH, Stage
from compressor.system.files import (
    MARKER,
    atomic_directory,
    check_replaceable,
    place_of,
    read_json,
    tree_sha256,
    write_whole,
)
from compressor.system.jobs import changes
from compressor.system.markers import read_marker, remove_own

RECIPE = "recipe.yaml"
STAGES = "stages.json"
KIND = "run"
# All that a run's folder gets: the results of stages with what belongs to them, and the data of the run.
CONTENT = (
    RECIPE,
    STAGES,
    *REPORTS,
    *(
        f"{name}{rest}/"
        for name in (DENSE, PRUNED, ARTIFACT, f"{ATTACK}/*", SEARCH, "data")
        for rest in ("", ".*")
    ),
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Finished(_Part):
    """A stage that is done: its facts, and a checksum of each of its outputs."""

    key: str
    facts: dict[str, Any]
    outputs: dict[str, str | None]
    seconds: float


class Begun(_Part):
    """A stage that was begun, and what it replaces."""

    # Earlier versions kept more.
    model_config = ConfigDict(extra="ignore", frozen=True)

    stage: str
    key: str
    facts: dict[str, Any]
    replaces: dict[str, str | None]


class Record(_Part):
    """What `stages.json` holds."""

    stages: dict[str, Finished] = {}
    begun: Begun | None = None


@dataclass(frozen=True)
class Step:
    """What is to be done about a stage: nothing, or to run it for these reasons."""

    stage: Stage
    reasons: tuple[str, ...]

    @property
    def runs(self) -> bool:
        """Whether the stage is not reused."""
        return bool(self.reasons)


class RunFolder:
    """The folder of a run, which may not be there yet.

    Raises:
        UserError: the folder is something else, or its record is broken.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._record = self._on_disk = Record()
        self.is_new = force or not (path / STAGES).is_file()
        if self.is_new:
            check_replaceable(path, force)
            return
        marker = read_marker(path)
        if marker is None or marker.kind != KIND:
            raise UserError(
                f"{path}: has a {STAGES}, but no {MARKER} of a run (early versions wrote none); choose "
                f"another --output, or remove it yourself"
            )
        try:
            self._record = Record.model_validate(read_json(path / STAGES))
        except ValidationError as error:
            raise UserError(
                f"{path / STAGES}: is not what compress run writes; start again with --force"
            ) from error
        self._on_disk = self._record
        begun = self._record.begun
        if begun is not None and self._is_whole(begun):
            self._record = self._with(begun.stage, begun.key, begun.facts, self._contents(begun.replaces), 0)

    def _is_whole(self, begun: Begun) -> bool:
        """Whether a stage's directory, which appears whole, is that of a run stopped before it said so."""
        contents = self._contents(begun.replaces)
        return len(contents) == 1 and None not in contents.values() and contents != begun.replaces

    def make(self, recipe_text: str) -> None:
        """Make the folder, in place of an earlier result if it was opened with `force`.

        Raises:
            UserError: it cannot be written.
        """
        if self.is_new:
            with atomic_directory(self.path, force=True, kind=KIND, grows=CONTENT) as working:
                (working / RECIPE).write_text(recipe_text, encoding="utf-8")
                self._write(Record(), working)

    def plan(self, stages: Sequence[Stage]) -> list[Step]:
        """For each stage, in their order, whether it is reused."""
        steps: dict[str, Step] = {}
        for stage in stages:
            again = [name for name in stage.after if steps[name].runs]
            reasons = [*self._changes(stage)] or [f"{name} runs" for name in again]
            steps[stage.name] = Step(stage, tuple(reasons))
        return list(steps.values())

    def _changes(self, stage: Stage) -> Iterator[str]:
        """What keeps a stage from being reused, apart from the stages that it follows."""
        done = self._record.stages.get(stage.name)
        if done is None:
            yield "not done yet"
        elif done.key != stage.key:
            yield from changes(_own(done.facts), _own(stage.facts))
        else:
            for name, content in done.outputs.items():
                if tree_sha256(self.path / name) != content:
                    there = (self.path / name).exists()
                    yield f"{name} is {'not as it was written' if there else 'missing'}"

    def _contents(self, names: Iterable[str]) -> dict[str, str | None]:
        return {name: tree_sha256(self.path / name) for name in names}

    def begin(self, stage: Stage) -> None:
        """Note that a stage begins."""
        begun = Begun(
            stage=stage.name,
            key=stage.key,
            facts=stage.facts,
            replaces=self._contents(stage.outputs),
        )
        self._write(self._record.model_copy(update={"begun": begun}))
        if stage.outputs == REPORTS:
            self._remove_reports()

    def finish(self, stage: Stage, seconds: float, recipe_text: str) -> None:
        """Note that a stage is done; those that follow it are not any more, and their report goes.

        Args:
            recipe_text: that the folder's results are made with from now on.
        """
        if stage.outputs != REPORTS:
            self._remove_reports()
        self.write_recipe(recipe_text)
        contents = self._contents(stage.outputs)
        self._write(self._with(stage.name, stage.key, stage.facts, contents, seconds))

    def _with(
        self, name: str, key: str, facts: dict[str, Any], outputs: dict[str, str | None], seconds: float
    ) -> Record:
        """The record with a stage that is done, and without those that follow it."""
        kept = dict(self._record.stages)
        stale = [name]
        while stale:
            followed = stale.pop()
            kept.pop(followed, None)
            stale += [other for other, done in kept.items() if followed in done.facts["after"]]
        kept[name] = Finished(key=key, facts=facts, outputs=outputs, seconds=round(seconds, 2))
        return Record(stages=kept)

    def _remove_reports(self) -> None:
        for name in REPORTS:
            (self.path / name).unlink(missing_ok=True)

    def write_recipe(self, text: str) -> None:
        """Write `recipe.yaml`."""
        _write_text(self.path / RECIPE, text)

    def remove_if_empty(self) -> None:
        """Remove a folder in which no stage has left anything."""
        if self.is_new and not any(path.is_dir() for path in self.path.iterdir()):
            remove_own(self.path, keep=place_of(self.path).is_written_into)

    def _write(self, record: Record, folder: Path | None = None) -> None:
        if folder is None:
            self._check_unchanged()
        _write_text((folder or self.path) / STAGES, record.model_dump_json(indent=2) + "\n")
        self._record = self._on_disk = record

    def _check_unchanged(self) -> None:
        """Raise a `UserError` if another run wrote the record, as it can where a file system has no locks."""
        if Record.model_validate(read_json(self.path / STAGES)) != self._on_disk:
            raise UserError(
                f"{self.path / STAGES}: another run wrote it while this one worked; start this one again "
                f"when that has ended"
            )


def _write_text(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def _own(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a stage without the keys of those that it follows."""
    return {name: value for name, value in facts.items() if name != "after"}
