"""Damaged and rewritten inputs, thousands an hour, through the command line in process.

    python -m benchmarks.campaign_inputs [--mutants 10000] [--seed 0] [--only NUMBER] [--quick] [--keep
    FOLDER] [--output FILE]

Each mutant is one damaged or rewritten file (data, configuration, checkpoint, artifact, packed model, record
or recipe of a random tiny model) and one command that reads it. What must hold for each, whatever was
damaged:

- the command ends with 0 or 2 and prints no traceback; `compress verify` ends with 1 where it found a
  changed file;
- an error is one line that names the file or the key;
- with another code than 0 there is no output, or the one from before, and nothing beside it; with 0 it is
  whole;
- no input is changed, and nothing is left in the folder of temporary files;
- a rewrite that means the same is answered the same to the last digit, and a fault that must be found is
  refused.

A mutant is made from the seed and its number alone. `--only` runs one again and keeps its folder. A process
runs some hundred mutants and is then replaced, so that one that crashes or hangs costs one mutant.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import mutations
from benchmarks.in_process import (
    HANG_SECONDS,
    import_all,
    prepare_process,
    run_in,
    temporary_files_in,
    tree,
)
from benchmarks.mutants import (
    BAD_INPUT,
    DONE,
    GATE_FAILED,
    OUTPUT,
    Mutant,
    Valid,
    answer_of,
    make_mutant,
    make_valid,
)
from benchmarks.results_file import RESULTS, markdown_table, write_result

MUTANTS, QUICK_MUTANTS = 10_000, 500
# A process is replaced after so many, since libraries keep what they have read.
MUTANTS_PER_PROCESS = 250
# What a command may take beside what the process has: a bomb that unfolds to more ends in an error.
ADDRESS_BYTES = 6 * 2**30
LONGEST_ERROR = 3000
SHOWN_FAILURES = 3
BYSTANDER = "bystander"
# What commands write of their own; other files of a model are copied as they are.
RECORDS = (
    "training.json",
    "pruning.json",
    "robustness.json",
    "perturbations.json",
    "inspection.json",
    "report.json",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        faults: what must hold and did not, one line each.
        signature: groups faults of one cause.
        code: of the exit; None if the process ended, or an exception escaped.
    """

    number: int
    area: str
    name: str
    command: str
    expected: str
    code: int | None
    seconds: float
    faults: tuple[str, ...] = ()
    signature: str = ""
    output: str = ""


# --- running one ----------------------------------------------------------------------------------


def run_mutant(valid: Valid, mutant: Mutant, number: int, folder: Path) -> Outcome:
    """Run a mutant in a new folder and check all that must hold; the folder stays."""
    place = folder / "in"
    lay_out(valid, mutant, place)
    bystander = folder / BYSTANDER
    bystander.mkdir()
    (bystander / "manifest.json").write_text("{}\n", encoding="utf-8")
    temporary = folder / "tmp"
    temporary.mkdir()
    before = tree(folder)
    start = time.monotonic()
    with temporary_files_in(temporary):
        code, out, err = run_in(place, mutant.arguments)
    seconds = time.monotonic() - start
    after = tree(folder)
    faults = list(_faults(valid, mutant, place, code, out, err, before, after))
    return Outcome(
        number, mutant.area, mutant.name, " ".join(mutant.arguments), mutant.expected, code, round(seconds,
        3),
        tuple(faults), signature_of(mutant, faults, err) if faults else "",
        f"{out}\n{err}"[-6000:] if faults else "",
    )  # fmt: skip


def lay_out(valid: Valid, mutant: Mutant, place: Path) -> None:
    """Copy the valid inputs of a mutant into its folder, and put its files in their place."""
    place.mkdir(parents=True)
    for name in mutant.inputs:
        source = valid.folder / name
        if source.is_dir():
            shutil.copytree(source, place / name)
        else:
            shutil.copyfile(source, place / name)
    for name, content in mutant.files.items():
        path = place / name
        path.unlink(missing_ok=True)
        if content is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    if mutant.replaces:
        shutil.copytree(valid.folder / "perturbed", place / OUTPUT)


def _faults(
    valid: Valid,
    mutant: Mutant,
    place: Path,
    code: int | None,
    out: str,
    err: str,
    before: Mapping[str, str],
    after: Mapping[str, str],
) -> Iterator[str]:
    """What must hold and does not, one line each."""
    if "TimeLimitError" in err:
        yield f"hangs: not done after {HANG_SECONDS} s"
        return
    if code is None:
        yield "an exception escapes"
    elif "Traceback (most recent call last)" in err + out:
        yield f"prints a traceback, exit {code}"
    elif code not in allowed_codes(mutant):
        yield f"ends with {code}"
    yield from _left_behind(place, code, mutant, before, after)
    if code == BAD_INPUT:
        yield from unclear(mutant, err)
        if mutant.expected == "same":
            yield "is refused, though it means the same as the valid input"
    if code == DONE:
        yield from _half_written(place / OUTPUT)
        if mutant.expected == "refused":
            yield "is taken, though it must be refused"
        if mutant.expected in ("same", "same or refused"):
            found, right = answer_of(place / OUTPUT, out), valid.answers[mutant.answer]
            if found != right:
                yield f"wrong result: not the valid input's answer ({found[:60]} and not {right[:60]})"


def allowed_codes(mutant: Mutant) -> tuple[int, ...]:
    """Exit codes that a command may end with: 1 says that a verified artifact is not what was exported."""
    return (DONE, GATE_FAILED, BAD_INPUT) if mutant.arguments[0] == "verify" else (DONE, BAD_INPUT)


def _left_behind(
    place: Path, code: int | None, mutant: Mutant, before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[str]:
    output = f"{place.name}/{OUTPUT}"

    def is_output(name: str) -> bool:
        return name == output or name.startswith(f"{output}/")

    if code != DONE or OUTPUT not in mutant.arguments:
        changed = sorted(
            name for name in {*before, *after} if is_output(name) and before.get(name) != after.get(name)
        )
        if changed:
            yield f"half-written output after exit {code}: {', '.join(changed[:3])}"
    elif not any(map(is_output, after)) and "--dry-run" not in mutant.arguments:
        yield "no output after exit 0"
    changed = sorted(name for name in before if not is_output(name) and before[name] != after.get(name))
    if changed:
        yield f"changes an input: {', '.join(changed[:3])}"
    added = sorted(name for name in after if not is_output(name) and name not in before)
    if added:
        # Names of temporary files are random.
        kinds = sorted(
            {re.sub(r"[A-Za-z0-9_]{8}(?=\b|\.)", "*", name.split("/", 1)[1].split("/")[0]) for name in added}
        )
        yield f"leaves beside the output after exit {code}: {', '.join(kinds[:3])}"


def unclear(mutant: Mutant, err: str) -> Iterator[str]:
    """What is wrong with the message of a refusal."""
    lines = err.split("\n")
    errors = [place for place, line in enumerate(lines) if line.startswith("error: ")]
    if len(errors) != 1:
        yield f"{len(errors)} lines of error and not one"
        return
    # Several problems of one file are listed below the line, indented.
    text = "\n".join(lines[errors[0] :]).removeprefix("error: ").strip()
    if not text:
        yield "an empty line of error"
    elif len(text) > LONGEST_ERROR:
        yield f"an error of {len(text)} characters"
    elif not _names_its_place(mutant, text):
        yield "an error that names neither file nor key"
    if re.search(r"object at 0x|Error\(", text):
        yield "an error in words of Python"


def _names_its_place(mutant: Mutant, text: str) -> bool:
    """Whether an error names the damaged file, its folder, or the key or option of a recipe."""
    names = {part for path in mutant.touched for part in (path, Path(path).name)}
    if any(re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text) for name in names):
        return True
    return mutant.area == "recipe" and re.match(r"(--[a-z-]+|'?[\w.]*'?)( |: )", text) is not None


def _half_written(output: Path) -> Iterator[str]:
    """What an output lacks whose command ended with 0."""
    if not output.is_dir():
        return
    names = {path.name for path in output.iterdir()}
    if not names:
        yield "an empty output after exit 0"
    if "manifest.json" in names:
        from compressor.models.manifest import artifact_problems

        for problem in artifact_problems(output):
            yield f"an output that does not verify: {problem}"
    if "model.safetensors" in names:
        absent = {"config.json", "tokenizer.json", "tokenizer_config.json"} - names
        # An unpacked model has what the packed one had.
        if absent and {"pruning.json", "training.json"} & names:
            yield f"a classifier without {', '.join(sorted(absent))}"
        try:
            mutations.split_safetensors((output / "model.safetensors").read_bytes())
        except (ValueError, OSError) as error:
            yield f"weights that cannot be read: {type(error).__name__}"
    for name in names & set(RECORDS):
        try:
            json.loads((output / name).read_text(encoding="utf-8"))
        except ValueError:
            yield f"{name} is no JSON"


FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


def signature_of(mutant: Mutant, faults: Sequence[str], err: str) -> str:
    """What groups failures of one cause: an exception and its innermost frame, or fault and command."""
    frames = FRAME.findall(err)
    if frames and ("Traceback" in err) and ("traceback" in faults[0] or "escapes" in faults[0]):
        own = [
            frame
            for frame in frames
            if "/compressor/" in frame[0] or "/exporters/" in frame[0] or frame[0].endswith("/cli.py")
        ]
        inner, ours = frames[-1], (own or frames)[-1]
        raised = re.findall(
            r"^(\w[\w.]*(?:Error|Exception|Exit|Warning|Interrupt|panic)?)(?::|$)", err, re.MULTILINE
        )
        kind = next((name for name in reversed(raised) if name != "error"), "?")
        places = [f"{Path(ours[0]).name}:{ours[1]} {ours[2]}"]
        if inner != ours:
            places.append(f"{Path(inner[0]).name} {inner[2]}")
        return f"{kind} at {', in '.join(places)}"
    fault = re.sub(r"\(.*\)|\d{2,}", "", faults[0]).strip()
    words = re.sub(
        r"'[^']*'|\"[^\"]*\"|=.*|\d+", "", mutant.name.split(":")[0] + mutant.name.partition(":")[2][:25]
    )
    return f"{fault[:100]} | {mutant.arguments[0]} | {words.strip()}"


# --- running all ----------------------------------------------------------------------------------


def run_all(
    valid: Valid,
    seed: int,
    numbers: Sequence[int],
    scratch: Path,
    keep: Path,
    done: Callable[[Outcome], None],
) -> None:
    """Run mutants in forked processes, one after the other; tell of each."""
    left = list(numbers)
    while left:
        batch = left[:MUTANTS_PER_PROCESS]
        finished = _run_batch(valid, seed, batch, scratch, keep, done)
        left = left[finished:]


def _run_batch(
    valid: Valid, seed: int, batch: Sequence[int], scratch: Path, keep: Path, done: Callable[[Outcome], None]
) -> int:
    """Run mutants in one forked process; return how many are done, one that ended it included."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        code = 1
        try:
            _work(valid, seed, batch, scratch, keep, writer)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    finished = 0
    with os.fdopen(reader, "rb") as stream:
        # Twice the time that the process takes to end a hang by itself.
        for line in _lines_within(stream, 2 * HANG_SECONDS):
            if line is None:
                os.kill(process, signal.SIGKILL)
                break
            done(Outcome(**{**json.loads(line), "faults": tuple(json.loads(line)["faults"])}))
            finished += 1
    _, status = os.waitpid(process, 0)
    if finished == len(batch):
        return finished
    number = batch[finished]
    mutant = make_mutant(valid, seed, number)
    how = (
        f"signal {signal.Signals(os.WTERMSIG(status)).name}"
        if os.WIFSIGNALED(status)
        else f"code {os.WEXITSTATUS(status)}"
    )
    fault = f"the process ends with {how}"
    outcome = Outcome(
        number, mutant.area, mutant.name, " ".join(mutant.arguments), mutant.expected, None, 0.0, (fault,),
        signature_of(mutant, [fault], ""),
    )  # fmt: skip
    _keep(scratch / str(number), keep, outcome)
    done(outcome)
    return finished + 1


def _lines_within(stream: Any, seconds: float) -> Iterator[bytes | None]:
    """Lines of a pipe; None, and no more, where the next one does not come in time."""
    import select

    rest = b""
    while True:
        ready, _, _ = select.select([stream], [], [], seconds)
        if not ready:
            yield None
            return
        piece = os.read(stream.fileno(), 1 << 16)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _work(valid: Valid, seed: int, batch: Sequence[int], scratch: Path, keep: Path, writer: int) -> None:
    """What a forked process does."""
    import torch

    torch.set_num_threads(1)
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        if sys.platform == "linux"
        else 0
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_BYTES, resource.RLIM_INFINITY))
    for number in batch:
        mutant = make_mutant(valid, seed, number)
        folder = scratch / str(number)
        outcome = run_mutant(valid, mutant, number, folder)
        if outcome.faults:
            _keep(folder, keep, outcome)
        shutil.rmtree(folder, ignore_errors=True)
        os.write(writer, (json.dumps(asdict(outcome)) + "\n").encode())
        if number % 20 == 0:
            gc.collect()


def _keep(folder: Path, keep: Path, outcome: Outcome) -> None:
    """Save a failing mutant with its command line and output, a few of each signature."""
    group = keep / hashlib.sha256(outcome.signature.encode()).hexdigest()[:10]
    if group.is_dir() and len(list(group.iterdir())) >= SHOWN_FAILURES:
        return
    target = group / str(outcome.number)
    if folder.is_dir():
        shutil.copytree(folder, target, symlinks=True, dirs_exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    lines = [outcome.signature, *outcome.faults, f"cd in; compress {outcome.command}", "", outcome.output]
    (target / "failure.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")


@dataclass
class Tally:
    """What is counted over mutants."""

    mutants: int = 0
    seconds: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    areas: Counter[str] = field(default_factory=Counter)
    expected: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    groups: dict[str, list[Outcome]] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.mutants += 1
        self.seconds += outcome.seconds
        self.codes[str(outcome.code)] += 1
        self.areas[outcome.area] += 1
        self.expected[outcome.expected] += 1
        if outcome.faults:
            self.groups.setdefault(outcome.signature, []).append(outcome)
        for fault in outcome.faults:
            self.faults[kind_of(fault)] += 1

    @property
    def failures(self) -> int:
        """Mutants of which something did not hold."""
        return sum(map(len, self.groups.values()))

    def record(self) -> dict[str, Any]:
        """For JSON; of each group some mutants."""
        groups = sorted(self.groups.items(), key=lambda entry: -len(entry[1]))
        return {
            "mutants": self.mutants,
            "failures": self.failures,
            "seconds": round(self.seconds, 1),
            "exit_codes": dict(self.codes),
            "areas": dict(self.areas),
            "expected": dict(self.expected),
            "faults": {kind: self.faults[kind] for kind in KINDS},
            "groups": [
                {
                    "signature": name,
                    "mutants": len(own),
                    "examples": [asdict(outcome) for outcome in own[:SHOWN_FAILURES]],
                }
                for name, own in groups
            ],
        }


KINDS = (
    "tracebacks",
    "other exit codes",
    "half-written outputs",
    "wrong results",
    "unclear errors",
    "crashes and hangs",
)


def kind_of(fault: str) -> str:
    """Which of the campaign's figures a fault counts for."""
    if "traceback" in fault or "escapes" in fault:
        return KINDS[0]
    if fault.startswith("ends with"):
        return KINDS[1]
    if "wrong result" in fault or "is taken" in fault or "is refused" in fault:
        return KINDS[3]
    if "error" in fault:
        return KINDS[4]
    return KINDS[5] if fault.startswith(("hangs", "the process")) else KINDS[2]


def tables(tally: Tally) -> str:
    """Counts, and one line a group of failures."""
    counts = [
        ["mutants", tally.mutants],
        ["failures", tally.failures],
        *([kind, tally.faults[kind]] for kind in KINDS),
    ]
    parts = [markdown_table(["", ""], counts)]
    if tally.groups:
        rows = [
            [len(own), name.replace("|", "/"), own[0].number, own[0].command, own[0].name.replace("|", "/")]
            for name, own in sorted(tally.groups.items(), key=lambda entry: -len(entry[1]))
        ]
        parts.append(markdown_table(["mutants", "what", "such as", "command", "damage"], rows))
    return "\n\n".join(parts)


def main(
    mutants: Annotated[int, typer.Option(min=1, help="How many.")] = MUTANTS,
    first: Annotated[int, typer.Option(min=0, help="Number of the first one.")] = 0,
    seed: Annotated[int, typer.Option(help="Of all mutants.")] = 0,
    only: Annotated[
        int | None, typer.Option(help="Run the mutant of this number alone, and keep its folder.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Folder for failing mutants; one of the temporary folder if not given."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "campaign_inputs.json",
    quick: Annotated[bool, typer.Option("--quick", help="500 mutants.")] = False,
) -> None:
    """Run mutants and report what did not hold; exit 1 if anything."""
    with tempfile.TemporaryDirectory(prefix="campaign-inputs-") as name:
        work = Path(name).resolve()
        prepare_process(work)
        import_all()
        from compressor.options import RunConfig
        from compressor.system.environment import describe_environment

        folder = work / "valid"
        folder.mkdir()
        valid = make_valid_apart(folder)
        scratch = work / "scratch"
        kept = keep or Path(tempfile.mkdtemp(prefix="campaign-inputs-failures-"))
        if only is not None:
            mutant = make_mutant(valid, seed, only)
            outcome = run_mutant(valid, mutant, only, kept / str(only))
            print(json.dumps({**asdict(outcome), "output": ""}, indent=2, ensure_ascii=False))
            print(outcome.output)
            print(f"Folder: {kept / str(only)}")
            raise typer.Exit(1 if outcome.faults else 0)
        tally = Tally()
        start = time.monotonic()
        count = QUICK_MUTANTS if quick else mutants

        def done(outcome: Outcome) -> None:
            tally.add(outcome)
            if tally.mutants % 100 == 0:
                pace = (time.monotonic() - start) / tally.mutants
                found = f"{tally.failures} failures of {len(tally.groups)} kinds"
                print(f"{tally.mutants}/{count}: {found}, {pace:.2f} s each", file=sys.stderr, flush=True)

        run_all(valid, seed, range(first, first + count), scratch, kept, done)
        result = {
            "environment": describe_environment(RunConfig(device="cpu", threads=1)),
            "seed": seed,
            "first": first,
            "wall_seconds": round(time.monotonic() - start, 1),
            **tally.record(),
        }
        write_result(output, result)
        print(tables(tally))
        if tally.failures:
            print(f"\nFailing mutants: {kept}")
            raise typer.Exit(1)


def make_valid_apart(folder: Path) -> Valid:
    """Call `make_valid` in a process of its own: an export starts threads, which no fork would have."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        code = 1
        try:
            valid = make_valid(folder)
            with os.fdopen(writer, "w") as stream:
                json.dump({"answers": valid.answers, "options": sorted(valid.options)}, stream)
            code = 0
        except BaseException as error:
            print(f"the valid inputs could not be made: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    _, status = os.waitpid(process, 0)
    if status:
        raise typer.Exit(3)
    found = json.loads(text)
    return Valid(folder, found["answers"], frozenset(found["options"]))


if __name__ == "__main__":
    typer.run(main)
