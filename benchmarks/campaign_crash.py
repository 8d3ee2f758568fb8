"""Every stage killed at random moments and started again, against a run that nothing disturbed.

    python -m benchmarks.campaign_crash [--kills 300] [--seed 0] [--stages LIST] [--only NUMBER] [--quick]
    [--output FILE]

Each kill is SIGKILL or SIGTERM, at a moment drawn over the time that an undisturbed run takes, or right
before one of its changes of the file system: a file that is opened to be written, a folder that is made, a
name that changes. Then the same command runs again, with `--resume` where it asks for that. What must hold
for each:

- after the signal there is no output, or a whole one, and no process is left; after SIGTERM the code is 143,
  and nothing but finished work is beside the output;
- the command that runs again ends well, and each file of its result is byte for byte that of an undisturbed
  run; of JSON records without the keys of `TIMES`, of reports for people without numbers and plots;
- inputs, and a folder of somebody else's beside them, are as they were.

Besides, two processes write to one output at once, one of them suspended for a while in a third of the
cases: one is refused, or both give a right result. And each command is given a folder of somebody else's as
its output, with files named like ours in it, which must be refused and stay.

Processes are forked from one that has imported the libraries, and begin at `cli.main`. A training's state is
kept at every step in place of every two minutes.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.in_process import import_all, prepare_process, tree
from benchmarks.mutants import SHORT
from benchmarks.results_file import RESULTS, markdown_table, write_result
from benchmarks.tiny_inputs import make_model, make_recipe, make_rows, write_tsv

KILLS, QUICK_KILLS = 300, 30
PAIRS, QUICK_PAIRS = 30, 4
ROWS = 40
OUTPUT = "out"
# What a command may leave beside its output when it is stopped: work that the next one goes on with.
KEPT = ("out.progress", "out.runs")
FOREIGN = "foreign"
DONE, BAD_INPUT, TERMINATED = 0, 2, 143
# How long a process may take to end after SIGTERM, and its children after it.
ENDING_SECONDS, ORPHAN_SECONDS = 30.0, 15.0
LONGEST_SECONDS = 300.0
# Moments are drawn over an undisturbed run's time and a bit more.
OVER = 1.05
# A signal that comes sooner meets a process that is not yet `compress`.
SOONEST = 0.05

# Keys of JSON records that hold times, and what is made of them.
TIMES = frozenset({"seconds", "latency", "footprint", "load_seconds", "outputs", "settled"})
# Reports for people: the times in them stand within sentences and plots.
READABLE = ("report.md", "report.html", "junit.xml")
# Plots have latencies in them, whose axes get other marks; one may settle in one run and not in another.
MEASURED = re.compile(r'<svg.*?</svg>| *<span class="status inconclusive">not settled</span>', re.DOTALL)
NUMBER = re.compile(r"-?\d[\d.,]*(e[+-]?\d+)?")


@dataclass(frozen=True)
class Stage:
    """A command that is killed.

    Attributes:
        arguments: without its output.
        share: of all kills.
        is_folder: its output is a folder of results, each of which appears whole.
        own_processes: it starts processes of its own.
    """

    arguments: tuple[str, ...]
    share: float
    is_folder: bool = False
    own_processes: bool = False


DATA = ("--data", "data.tsv", *SHORT)
PRUNE = (
    "prune",
    "model",
    "--calibration",
    "train.tsv",
    *SHORT,
    "--sparsity",
    "0.5",
    "--calibration-examples",
    "16",
)
ATTACKED = ("--attack", "deepwordbug", "--attack-examples", "8")
VALIDATE = (
    "validate", "model", "artifact", *DATA, "--gates", "accuracy_drop <= 1", "--latency-rounds", "5",
    "--batch-sizes", "1",
    "--sequence-lengths", "8", "--attack", "deepwordbug", "--attack-examples", "3",
)  # fmt: skip
STAGES: dict[str, Stage] = {
    "finetune": Stage(("finetune", "model", *DATA, "--epochs", "1", "--batch-size", "4"), 0.15),
    "adaptive": Stage((*PRUNE, "--algorithm", "adaptive"), 0.12),
    "distilled": Stage((*PRUNE, "--algorithm", "adaptive", "--distillation-steps", "12"), 0.12),
    "randomized": Stage(
        (*PRUNE, "--algorithm", "randomized", "--steps", "2", "--candidates", "2", "--holdout-examples", "8",
        "--early-steps", "2",
         "--recovery-steps", "6", "--batch-size", "4"), 0.12,
    ),
    "attack": Stage(("attack", "model", *DATA, *ATTACKED), 0.13),
    "export": Stage(("export", "pruned", *DATA, "--parity-examples", "4"), 0.08),
    "validate": Stage((*VALIDATE, "--no-footprint"), 0.08),
    "run": Stage(("run", "recipe.yaml"), 0.10, is_folder=True),
    "perturb": Stage(("perturb", "model", *DATA, "--perturbations", "typos"), 0.03),
    "pack": Stage(("pack", "pruned"), 0.02),
    "vocabulary": Stage(
        ("vocabulary", "pruned", "--vocabulary", "train.tsv", *DATA, "--vocabulary-agreement", "0"), 0.01
    ),
    "soup": Stage(
        ("soup", "model", *DATA, "--runs", "2", "--epoch-counts", "1", "--substituted-shares", "0",
         "--holdout-examples", "8", "--attack", "deepwordbug", "--attack-examples", "3"), 0.01,
    ),
    "attack in processes": Stage(("attack", "model", *DATA, *ATTACKED, "--processes", "2"), 0.015,
    own_processes=True),
    "validate with footprint": Stage(VALIDATE, 0.015, own_processes=True),
}  # fmt: skip
# Importing TextAttack takes seconds, which these need not.
WITHOUT_ATTACKS = frozenset(
    {"finetune", "adaptive", "distilled", "randomized", "pack", "vocabulary", "export"}
)
# Of a run's folder: each appears whole.
PARTS = ("dense", "pruned", "artifact", "attack/dense", "attack/pruned", "attack/artifact")


@dataclass(frozen=True)
class Undisturbed:
    """What a stage does when nothing disturbs it.

    Attributes:
        files: of its output, normalized, by path.
        seconds: that it took, from its start.
        changes: how often it changed the file system.
    """

    files: dict[str, bytes]
    seconds: float
    changes: int


@dataclass(frozen=True)
class Kill:
    """One kill and what became of it.

    Attributes:
        moment: a time, or a number of changes of the file system.
        code: of the killed process: its exit code, or the negative number of a signal.
        resumed: whether it left finished work that the next one could take.
        faults: what must hold and did not.
        left: names beside the output that the killed process left and the next one did not remove.
    """

    number: int
    stage: str
    signal: str
    moment: str
    code: int | None = None
    resumed: bool = False
    faults: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    output: str = ""


# --- processes ------------------------------------------------------------------------------------


class Ticks:
    """A counter that a forked process counts up, and what it does to itself at a number."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    @property
    def count(self) -> int:
        """Changes of the file system so far."""
        return int(struct.unpack("q", self._memory[:8])[0])

    def watch(self, folder: Path, at: int | None, number: int) -> None:
        """Count what this process changes in `folder`; send it the signal before change `at`, from 1."""

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if not is_change(event, arguments, str(folder)):
                return
            count = self.count + 1
            self._memory[:8] = struct.pack("q", count)
            if count == at:
                os.kill(os.getpid(), number)

        sys.addaudithook(hook)


CHANGES = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link", "os.symlink"}
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def is_change(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Whether an audit event is a change of the file system in `folder`, of which relative paths are."""
    if event == "open":
        path, mode, flags = arguments
        if not (isinstance(flags, int) and flags & WRITING) and not set(mode or "") & set("wax+"):
            return False
    elif event in CHANGES:
        path = arguments[0]
    else:
        return False
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    text = os.fsdecode(path)
    return not text.startswith("/") or text.startswith(folder)


@dataclass
class Process:
    """A forked process that runs a command line, its log, and its counter."""

    pid: int
    log: Path
    ticks: Ticks
    start: float = field(default_factory=time.monotonic)
    status: int | None = None

    def send(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None while it runs."""
        if self.status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, seconds: float) -> int | None:
        """As `poll`, after so many seconds at most."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        return self.poll()

    def end(self, seconds: float = LONGEST_SECONDS) -> int | None:
        """As `wait`; kills it after that time."""
        code = self.wait(seconds)
        if code is None:
            self.send(signal.SIGKILL)
            self.wait(ENDING_SECONDS)
        return code

    def text(self) -> str:
        """What it wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def start(
    arguments: Sequence[str], place: Path, log: Path, at: int | None = None, number: int = signal.SIGKILL
) -> Process:
    """Fork a process that runs a command line in `place`, in a session of its own.

    Args:
        at: before which change of the file system it sends itself the signal `number`.
    """
    ticks = Ticks()
    pid = os.fork()
    if pid:
        return Process(pid, log, ticks)
    code = 70
    try:
        code = _be_compress(arguments, place, log, ticks, at, number)
    finally:
        os._exit(code)


def _be_compress(
    arguments: Sequence[str], place: Path, log: Path, ticks: Ticks, at: int | None, number: int
) -> int:
    """What the forked process does: as the installed program from its entry point on."""
    import atexit
    import traceback

    import torch

    import cli
    from compressor.training import checkpoint as training_checkpoint

    os.setsid()
    os.chdir(place)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    torch.set_num_threads(1)
    # A training's state at every step: else it is kept every two minutes, and none of these takes one.
    training_checkpoint.SECONDS_BETWEEN = 0.0
    ticks.watch(place, at, number)
    sys.argv = ["compress", *arguments]
    code: Any = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


def session_processes(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything.
            values = path.read_text().rpartition(")")[2].split()
            if int(values[3]) == session and values[0] != "Z":
                found.append(int(path.parent.name))
    return found


def orphans(session: int) -> int:
    """How many processes of a session do not end by themselves soon; those are killed."""
    end = time.monotonic() + ORPHAN_SECONDS
    while (left := session_processes(session)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


# --- the place where stages run -------------------------------------------------------------------


class Workplace:
    """A folder with inputs, laid out anew for each run at the same place: records hold paths.

    Args:
        inputs: what is copied there.
        folder: where.
    """

    def __init__(self, inputs: Path, folder: Path) -> None:
        self._inputs = inputs
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self._before: dict[str, str] = {}

    def lay_out(self) -> None:
        """Make the folder anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        shutil.copytree(self._inputs, self.folder)
        write_foreign(self.folder / FOREIGN)
        self._before = tree(self.folder)

    def changed(self) -> list[str]:
        """Inputs and folders of somebody else's that are not as they were."""
        now = tree(self.folder)
        return sorted(name for name, content in self._before.items() if now.get(name) != content)

    def beside(self) -> list[str]:
        """What is there besides inputs, the output and work that is kept."""
        known = {OUTPUT, *KEPT, *(name.split("/")[0] for name in self._before)}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in known)

    def within(self) -> list[str]:
        """What is half written within a folder of results."""
        names = (path.relative_to(self.folder).as_posix() for path in (self.folder / OUTPUT).rglob(".*"))
        return sorted(name for name in names if re.search(r"\.(partial|old|lock)$", name))

    def kept(self) -> list[str]:
        """Folders of work that is kept."""
        names = [name for name in KEPT if (self.folder / name).exists()]
        inner = (self.folder / OUTPUT).rglob("*.progress")
        return names + sorted(path.relative_to(self.folder).as_posix() for path in inner)

    @property
    def output(self) -> Path:
        """Where commands write to."""
        return self.folder / OUTPUT


def make_inputs(folder: Path, stages: Sequence[str]) -> None:
    """Make what stages read; a pruned model and an artifact only for those that need them."""
    make_model(folder / "model", layers=2)
    write_tsv(folder / "data.tsv", make_rows(ROWS))
    write_tsv(folder / "train.tsv", make_rows(ROWS, seed=1))
    make_recipe(folder / "recipe.yaml", "model", "train.tsv", "data.tsv")
    validated = any(name.startswith("validate") for name in stages)
    steps: list[tuple[str, ...]] = []
    if validated or {"export", "pack"} & set(stages):
        steps.append((*PRUNE, "--algorithm", "magnitude", "--output", "pruned"))
    if validated:
        steps.append(("export", "pruned", *DATA, "--parity-examples", "4", "--output", "artifact"))
    for arguments in steps:
        process = start(arguments, folder, folder.with_suffix(".log"))
        if process.end() != DONE:
            raise RuntimeError(f"inputs could not be made: {' '.join(arguments)}: {process.text()}")


# As in a project that has nothing to do with `compress`, whose records have such names.
FOREIGN_FILES = {
    "manifest.json": '{"name": "a web project", "version": 3}\n',
    "report.json": '{"passed": 12}\n',
    "recipe.yaml": "name: pancakes\neggs: 3\n",
    "pruning.json": "{}\n",
    "training.json": "[]\n",
    "robustness.json": "{}\n",
    "inspection.json": "{}\n",
    "stages.json": '{"stages": {}}\n',
    "config.json": "{}\n",
    "src/index.html": "<html></html>\n",
}


def write_foreign(folder: Path) -> None:
    """Write a folder of somebody else's, with files named like ours."""
    for name, text in FOREIGN_FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read_output(output: Path) -> dict[str, bytes]:
    """The files of an output, normalized, by path; empty if there is none."""
    return {
        path.relative_to(output).as_posix(): normalized(path.name, path.read_bytes())
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


def normalized(name: str, content: bytes) -> bytes:
    """A file without times: of JSON without the keys of `TIMES`, of a report without numbers and plots."""
    if name in READABLE:
        return NUMBER.sub("0", MEASURED.sub("", content.decode())).encode()
    if name.endswith((".json", ".jsonl")):
        lines = content.decode().split("\n") if name.endswith(".jsonl") else [content.decode()]
        with contextlib.suppress(ValueError):
            values = [_without_times(json.loads(line)) for line in lines if line.strip()]
            return "\n".join(json.dumps(value, ensure_ascii=False) for value in values).encode()
    return content


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def differences(found: dict[str, bytes], right: dict[str, bytes]) -> list[str]:
    """Files that differ, are missing, or should not be there."""
    return sorted(name for name in {*found, *right} if found.get(name) != right.get(name))


# --- kills ----------------------------------------------------------------------------------------


def run_undisturbed(place: Workplace, arguments: Sequence[str]) -> Undisturbed:
    """Run a command from a fresh layout to its end.

    Raises:
        RuntimeError: it fails, or leaves something beside its output.
    """
    place.lay_out()
    process = start([*arguments, "--output", OUTPUT], place.folder, place.log)
    code = process.end()
    seconds = time.monotonic() - process.start
    left = [
        *place.beside(),
        *place.changed(),
        *place.within(),
        *(name for name in place.kept() if name != "out.runs"),
    ]
    if code != DONE or left:
        raise RuntimeError(
            f"{' '.join(arguments)}: undisturbed exit {code}, left {left}: {process.text()[-2000:]}"
        )
    return Undisturbed(read_output(place.output), seconds, process.ticks.count)


def kill_once(number: int, seed: int, place: Workplace, stages: dict[str, Undisturbed]) -> Kill:
    """Kill a stage at a moment of the number's, run it again, and check all that must hold."""
    generator = random.Random(f"{seed}:{number}")
    name = generator.choices(list(stages), [STAGES[key].share for key in stages])[0]
    signal_name = generator.choice(("SIGKILL", "SIGTERM"))
    by_change, share = generator.random() < 0.5, generator.random()
    stage, undisturbed = STAGES[name], stages[name]
    sent = signal.Signals[signal_name]
    arguments = [*stage.arguments, "--output", OUTPUT]
    place.lay_out()
    if by_change:
        at = 1 + int(share * undisturbed.changes)
        moment = f"before change {at} of {undisturbed.changes}"
        process = start(arguments, place.folder, place.log, at, sent)
    else:
        delay = SOONEST + share * undisturbed.seconds * OVER
        moment = f"after {delay:.2f} s of {undisturbed.seconds:.2f}"
        process = start(arguments, place.folder, place.log)
        process.wait(delay)
        process.send(sent)
    code = process.end(LONGEST_SECONDS if by_change else ENDING_SECONDS)
    faults = [*_after_signal(place, stage, undisturbed, process, code, signal_name)]
    resumed = bool(place.kept())
    left: list[str] = []
    text = process.text()
    if not faults or signal_name == "SIGTERM":
        again, text_again = run_again(arguments, place)
        text += text_again
        faults += _after_resume(place, undisturbed, again, text_again)
        left = place.beside() + place.within()
        if signal_name == "SIGTERM" and left:
            faults.append(f"left in the end: {', '.join(left)}")
    return Kill(
        number, name, signal_name, moment, code, resumed, tuple(faults), tuple(left),
        text[-4000:] if faults else ""
    )  # fmt: skip


def run_again(arguments: Sequence[str], place: Workplace) -> tuple[int | None, str]:
    """Run a stopped command again, with `--resume` where it asks for that; return its exit code and what it
    wrote.
    """
    place.log.unlink(missing_ok=True)
    process = start(arguments, place.folder, place.log)
    code = process.end()
    if code == BAD_INPUT and "--resume" in process.text() and "--resume" not in arguments:
        return run_again([*arguments, "--resume"], place)
    return code, process.text()


def _after_signal(
    place: Workplace,
    stage: Stage,
    undisturbed: Undisturbed,
    process: Process,
    code: int | None,
    signal_name: str,
) -> Iterator[str]:
    """What must hold after the signal and does not."""
    if code is None:
        yield f"does not end after {signal_name}"
    if signal_name == "SIGTERM":
        if code not in (DONE, TERMINATED, None):
            yield f"ends with {code} after SIGTERM"
        if "Traceback (most recent call last)" in process.text():
            yield "prints a traceback"
        beside = place.beside() + place.within()
        if beside:
            yield f"leaves {_shown(beside)} after SIGTERM"
    elif code not in (DONE, -signal.SIGKILL):
        yield f"ends with {code} before SIGKILL"
    left = orphans(process.pid)
    if left:
        yield f"{left} processes of its own are left"
    yield from _changed(place)
    yield from _half_written(place, stage, undisturbed)


def _shown(names: Sequence[str]) -> str:
    """Names, of which those of temporary folders are random."""
    return ", ".join(re.sub(r"[a-z0-9_]{8}(?=[.])", "*", name) for name in names)


def _changed(place: Workplace) -> Iterator[str]:
    changed = place.changed()
    if changed:
        yield f"changes {', '.join(changed[:3])}"


def _half_written(place: Workplace, stage: Stage, undisturbed: Undisturbed) -> Iterator[str]:
    """Outputs that are there and not whole."""
    found = read_output(place.output)
    parts = [f"{part}/" for part in PARTS] if stage.is_folder else [""]
    for part in parts:
        own = {
            name: content
            for name, content in found.items()
            if name.startswith(part) and ".progress/" not in name
        }
        right = {name: content for name, content in undisturbed.files.items() if name.startswith(part)}
        if own and (wrong := differences(own, right)):
            yield f"half-written output: {', '.join(wrong[:3])}"


def _after_resume(place: Workplace, undisturbed: Undisturbed, code: int | None, text: str) -> Iterator[str]:
    """What must hold after the command ran again and does not."""
    found = read_output(place.output)
    wrong = differences(found, undisturbed.files)
    # The signal came after the output had its name: what is there is the result, and is not replaced.
    is_there = code == BAD_INPUT and not wrong and "exists" in text
    if code != DONE and not is_there:
        yield f"runs again and ends with {code}: {(text.strip().splitlines() or [''])[-1][:200]}"
    elif wrong:
        yield f"wrong result when it runs again: {', '.join(wrong[:4])}"
    kept = [name for name in place.kept() if name != "out.runs"]
    if code == DONE and kept:
        yield f"keeps {', '.join(kept)} beside a whole result"
    if "Traceback (most recent call last)" in text:
        yield "prints a traceback when it runs again"
    yield from _changed(place)


# --- two processes, and folders of somebody else's ------------------------------------------------

PAIRED = ("finetune", "adaptive", "randomized", "attack", "pack", "perturb", "run")


def run_pair(number: int, seed: int, place: Workplace, stages: dict[str, Undisturbed]) -> Kill:
    """Two processes that write to one output: one is refused, or both give a right result."""
    generator = random.Random(f"pair {seed}:{number}")
    name = generator.choice([key for key in PAIRED if key in stages])
    how = generator.choice(("the same twice", "the same with --force", "one suspended"))
    share = generator.random()
    undisturbed = stages[name]
    arguments = [*STAGES[name].arguments, "--output", OUTPUT]
    second = [*arguments, "--force"] if how != "the same twice" else arguments
    place.lay_out()
    if how == "one suspended":
        at = 1 + int(share * undisturbed.changes)
        moment = f"{how} before change {at} of {undisturbed.changes}"
        processes = [start(arguments, place.folder, place.log, at, signal.SIGSTOP)]
        _until_stopped(processes[0])
        other = place.log.with_suffix(".second.log")
        other.unlink(missing_ok=True)
        processes.append(start(second, place.folder, other))
        processes[1].end(LONGEST_SECONDS / 3)
        processes[0].send(signal.SIGCONT)
    else:
        delay = share * undisturbed.seconds
        moment = f"{how}, {delay:.2f} s later"
        processes = [start(arguments, place.folder, place.log)]
        processes[0].wait(delay)
        other = place.log.with_suffix(".second.log")
        other.unlink(missing_ok=True)
        processes.append(start(second, place.folder, other))
    codes = [process.end() for process in processes]
    text = "\n".join(process.text() for process in processes)
    faults = [*_after_pair(place, undisturbed, codes, text)]
    faults += [f"{left} processes are left" for process in processes if (left := orphans(process.pid))]
    return Kill(
        number, name, "pair", moment, codes[0], False, tuple(faults), (), text[-4000:] if faults else ""
    )


def _until_stopped(process: Process) -> None:
    """Wait until a process has stopped itself, or ended."""
    while process.poll() is None:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T" or time.monotonic() - process.start > LONGEST_SECONDS:
            return
        time.sleep(0.002)


def _after_pair(
    place: Workplace, undisturbed: Undisturbed, codes: Sequence[int | None], text: str
) -> Iterator[str]:
    if not set(codes) <= {DONE, BAD_INPUT}:
        yield f"two processes end with {codes[0]} and {codes[1]}"
    elif DONE not in codes:
        yield "both of two processes are refused"
    wrong = differences(read_output(place.output), undisturbed.files)
    if DONE in codes and wrong:
        yield f"wrong result of two processes: {', '.join(wrong[:4])}"
    if "Traceback (most recent call last)" in text:
        yield "one of two processes prints a traceback"
    left = place.beside() + place.within() + [name for name in place.kept() if name != "out.runs"]
    if left:
        yield f"two processes leave {_shown(left)}"
    yield from _changed(place)


def give_foreign(number: int, name: str, flags: Sequence[str], where: str, place: Workplace) -> Kill:
    """Give a stage a folder of somebody else's, as its output or in place of the work that it keeps."""
    place.lay_out()
    write_foreign(place.folder / where)
    if where != OUTPUT:
        # What a stage keeps has such names; what is in them is not its.
        (place.folder / where / "job.json").write_text('{"title": "carpenter"}\n', encoding="utf-8")
    before = tree(place.folder / where)
    process = start([*STAGES[name].arguments, "--output", OUTPUT, *flags], place.folder, place.log)
    code = process.end()
    text = process.text()
    faults = [*_changed(place)]
    if tree(place.folder / where) != before:
        faults.append(f"changes a folder of somebody else's at {where}")
    # Some stages keep nothing, and have no interest in a folder of that name.
    if code != BAD_INPUT and not (where != OUTPUT and code == DONE):
        faults.append(f"ends with {code} where {where} is somebody else's")
    if "Traceback (most recent call last)" in text:
        faults.append("prints a traceback")
    moment = f"{where}{' with ' if flags else ''}{' '.join(flags)}"
    return Kill(
        number, name, "foreign", moment, code, False, tuple(faults), (), text[-2000:] if faults else ""
    )


def foreign_cases(stages: Sequence[str]) -> list[tuple[str, tuple[str, ...], str]]:
    """Stage, flags, and where the folder is."""
    return [
        (name, flags, where)
        for name in stages
        for flags, where in (((), OUTPUT), (("--force",), OUTPUT), (("--force",), KEPT[0]))
        if not STAGES[name].own_processes
    ]


# --- all ------------------------------------------------------------------------------------------


def table(kills: Sequence[Kill]) -> str:
    """One line a stage and kind of disturbance."""
    kinds = Counter((kill.stage, kill.signal) for kill in kills)
    rows: list[list[object]] = []
    for (stage, kind), count in sorted(kinds.items()):
        own = [kill for kill in kills if (kill.stage, kill.signal) == (stage, kind)]
        failed = sum(bool(kill.faults) for kill in own)
        resumed = sum(kill.resumed for kill in own)
        left = sum(bool(kill.left) for kill in own)
        rows.append([stage, kind, count, resumed, left, failed])
    found = sum(kill.resumed for kill in kills), sum(bool(kill.left) for kill in kills)
    rows.append(["all", "", len(kills), *found, sum(bool(kill.faults) for kill in kills)])
    parts = [
        markdown_table(["stage", "disturbed by", "times", "with kept work", "left beside", "failures"], rows)
    ]
    groups: dict[str, list[Kill]] = {}
    for kill in kills:
        for fault in kill.faults:
            groups.setdefault(f"{kill.signal}: {re.sub(r'[0-9]+', 'N', fault)}", []).append(kill)
    if groups:
        lines = [
            [
                len(own),
                fault.replace("|", "/"),
                ", ".join(sorted({kill.stage for kill in own})),
                own[0].number,
                own[0].moment,
            ]
            for fault, own in sorted(groups.items(), key=lambda entry: -len(entry[1]))
        ]
        parts.append(markdown_table(["times", "what", "stages", "such as", "moment"], lines))
    return "\n\n".join(parts)


def chosen_stages(text: str | None) -> list[str]:
    """The stages of a list with commas between them; all if there is none."""
    names = list(STAGES) if text is None else [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(STAGES))
    if unknown:
        raise typer.BadParameter(f"no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    return names


def main(
    kills: Annotated[int, typer.Option(min=0, help="How many.")] = KILLS,
    pairs: Annotated[int, typer.Option(min=0, help="How many times two processes have one output.")] = PAIRS,
    foreign: Annotated[
        bool, typer.Option("--foreign/--no-foreign", help="Whether outputs are somebody else's, too.")
    ] = True,
    first: Annotated[int, typer.Option(min=0, help="Number of the first kill.")] = 0,
    seed: Annotated[int, typer.Option(help="Of all moments.")] = 0,
    stages: Annotated[
        str | None, typer.Option(help="Which of them, with commas between; all if not given.")
    ] = None,
    only: Annotated[
        int | None, typer.Option(help="Do the kill of this number alone, and keep its folder.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "campaign_crash.json",
    quick: Annotated[bool, typer.Option("--quick", help="30 kills, 4 pairs.")] = False,
) -> None:
    """Kill stages, resume them, and report what did not hold; exit 1 if anything."""
    names = chosen_stages(stages)
    work = Path(tempfile.mkdtemp(prefix="campaign-crash-")).resolve()
    is_kept = False
    try:
        prepare_process(work)
        import_all(with_attacks=not set(names) <= WITHOUT_ATTACKS)
        from compressor.options import RunConfig
        from compressor.system.environment import describe_environment

        inputs = work / "inputs"
        inputs.mkdir()
        make_inputs(inputs, names)
        place = Workplace(inputs, work / "place")
        undisturbed = {name: _steady(place, name) for name in names}
        if only is not None:
            is_kept = True
            found = kill_once(only, seed, place, undisturbed)
            print(json.dumps(asdict(found), indent=2, ensure_ascii=False))
            print(f"Folder: {place.folder}")
            raise typer.Exit(1 if found.faults else 0)
        kill_count, pair_count = (QUICK_KILLS, QUICK_PAIRS) if quick else (kills, pairs)
        done: list[Kill] = []
        begin = time.monotonic()

        def tell(kill: Kill) -> None:
            done.append(kill)
            failed = sum(bool(each.faults) for each in done)
            pace = (time.monotonic() - begin) / len(done)
            line = f"{len(done)}: {kill.stage}, {kill.signal} {kill.moment}: exit {kill.code}"
            outcome = "; ".join(kill.faults) or "well"
            pace_text = f"{failed} failures, {pace:.1f} s each"
            print(f"{line}; {outcome} ({pace_text})", file=sys.stderr, flush=True)

        for number in range(first, first + kill_count):
            tell(kill_once(number, seed, place, undisturbed))
        if any(name in PAIRED for name in names):
            for number in range(pair_count):
                tell(run_pair(number, seed, place, undisturbed))
        for number, (name, flags, where) in enumerate(foreign_cases(names) if foreign else ()):
            tell(give_foreign(number, name, flags, where, place))
        failures = [kill for kill in done if kill.faults]
        result = {
            "environment": describe_environment(RunConfig(device="cpu", threads=1)),
            "seed": seed,
            "first": first,
            "wall_seconds": round(time.monotonic() - begin, 1),
            "without": {"keys": sorted(TIMES), "numbers_and_plots_of": list(READABLE)},
            "undisturbed": {
                name: {"seconds": round(own.seconds, 2), "changes": own.changes}
                for name, own in undisturbed.items()
            },
            "failures": len(failures),
            "rows": [asdict(kill) for kill in done],
        }
        write_result(output, result)
        print(table(done))
        if failures:
            raise typer.Exit(1)
    finally:
        if not is_kept:
            shutil.rmtree(work, ignore_errors=True)


def _steady(place: Workplace, name: str) -> Undisturbed:
    """An undisturbed run of a stage, whose result a second one repeats.

    Raises:
        RuntimeError: it does not, so that nothing could be said of a resumed one.
    """
    first, second = (run_undisturbed(place, STAGES[name].arguments) for _ in range(2))
    wrong = differences(first.files, second.files)
    if wrong:
        raise RuntimeError(f"{name}: two undisturbed runs differ in {', '.join(wrong)}")
    return second


if __name__ == "__main__":
    typer.run(main)
