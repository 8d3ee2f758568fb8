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

import contextlib
import gc
import hashlib
import json
import os
import random
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

from benchmarks import known_answers as known
from benchmarks import mutations
from benchmarks.known_answers import Expected, Files
from benchmarks.results_file import RESULTS, markdown_table, write_result
from benchmarks.tiny_inputs import MAX_LENGTH, make_model, make_recipe, make_rows, write_tsv

MUTANTS, QUICK_MUTANTS = 10_000, 500
# A process is replaced after so many, since libraries keep what they have read.
MUTANTS_PER_PROCESS = 250
# A command takes a second at most where nothing is wrong; an export or a validation ten.
HANG_SECONDS = 60
# What a command may take beside what the process has: a bomb that unfolds to more ends in an error.
ADDRESS_BYTES = 6 * 2**30
ROWS = 24
LONGEST_ERROR = 1500
SHOWN_FAILURES = 3
OUTPUT = "out"
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
DONE, GATE_FAILED, BAD_INPUT = 0, 1, 2
SHORT = ("--max-length", str(MAX_LENGTH), "--threads", "1", "--device", "cpu")
TYPOS = ("--perturbations", "typos", "--perturbed-examples", "100")


@dataclass(frozen=True)
class Command:
    """A command line that reads an input, and how often it is chosen among others.

    Attributes:
        arguments: paths are within the mutant's folder; INPUT is the damaged file or folder.
        weight: the inverse of what it costs, roughly.
        writes: whether it is given `--output`.
        depends: what its answer depends on besides texts and labels.
    """

    arguments: tuple[str, ...]
    weight: float = 1.0
    writes: bool = True
    depends: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return " ".join(word for word in self.arguments[:2] if not word.startswith(("-", "INPUT", "model")))


ORDERED = frozenset({known.ROW_ORDER})
NAMED = frozenset({known.ROW_ORDER, known.LABEL_NAMES})
WANDA = ("--algorithm", "wanda", "--calibration-examples", "100", *SHORT)
ONE_EXAMPLE = ("--attack", "deepwordbug", "--attack-examples", "1", *SHORT)
# Numbers beside a measurement of them in seconds are worth little; weights follow 0.1 to 0.6 s, and 3 to 6 s.
DATA_COMMANDS = (
    Command(("finetune", "model", "--data", "INPUT", "--epochs", "1", "--batch-size", "8", *SHORT), 4,
    depends=NAMED),
    Command(("prune", "model", "--calibration", "INPUT", *WANDA), 4, depends=ORDERED),
    Command(("perturb", "model", "--data", "INPUT", *TYPOS, *SHORT), 4),
    Command(("attack", "model", "--data", "INPUT", *ONE_EXAMPLE), 0.5, depends=ORDERED),
    Command(("export", "model", "--data", "INPUT", "--parity-examples", "4", *SHORT), 0.01, depends=ORDERED),
    Command(
        ("validate", "model", "artifact", "--data", "INPUT", "--gates", "accuracy_drop <= 1",
        "--no-footprint",
         "--latency-rounds", "5", "--batch-sizes", "1", "--sequence-lengths", "8", *ONE_EXAMPLE), 0.02,
         depends=ORDERED,
    ),
)  # fmt: skip
MODEL_COMMANDS = (
    Command(("inspect", "INPUT"), 3),
    Command(("prune", "INPUT", "--calibration", "data.tsv", *WANDA), 3),
    Command(
        ("finetune", "INPUT", "--data", "data.tsv", "--epochs", "1", *SHORT),
        1.5,
        depends=frozenset({"dropout"}),
    ),
    Command(("perturb", "INPUT", "--data", "data.tsv", *TYPOS, *SHORT), 3),
    Command(("pack", "INPUT"), 0.7),
    Command(("attack", "INPUT", "--data", "data.tsv", *ONE_EXAMPLE), 0.3),
    Command(("export", "INPUT", "--data", "data.tsv", "--parity-examples", "4", *SHORT), 0.01),
)
ARTIFACT_COMMANDS = (
    Command(("inspect", "INPUT"), 2),
    Command(("verify", "INPUT"), 1, writes=False),
    Command(("triton", "INPUT"), 3),
    Command(("perturb", "INPUT", "--data", "data.tsv", *TYPOS, *SHORT), 3),
    Command(("attack", "INPUT", "--data", "data.tsv", *ONE_EXAMPLE), 0.5),
    Command(
        ("validate", "model", "INPUT", "--data", "data.tsv", "--gates", "accuracy_drop <= 1",
        "--no-footprint",
         "--latency-rounds", "5", "--batch-sizes", "1", "--sequence-lengths", "8", *ONE_EXAMPLE), 0.1,
    ),
)  # fmt: skip
PACKED_COMMANDS = (
    Command(("unpack", "INPUT"), 3),
    Command(("verify", "INPUT"), 1, writes=False),
    Command(("inspect", "INPUT"), 0.3),
)
RECIPE_COMMANDS = (
    Command(("recipe", "show", "INPUT", "--json"), 12, writes=False),
    Command(("run", "INPUT", "--dry-run"), 0.5),
)
RECORD_COMMANDS = {
    "pruned/pruning.json": (Command(("inspect", "pruned")), Command(("pack", "pruned"), 0.3)),
    "report/report.json": (
        Command(("compare", "INPUT", "report2"), writes=False), Command(("compare", "report2", "report"),
        writes=False),
    ),
    "perturbed/perturbed.jsonl": (
        Command(("perturb", "model", "--data", "data.tsv", "--against", "perturbed", *TYPOS, *SHORT)),
    ),
    "perturbed/perturbations.json": (
        Command(("perturb", "model", "--data", "data.tsv", "--against", "perturbed", *TYPOS, *SHORT)),
    ),
    "attacked/robustness.json": (
        Command(("attack", "model", "--data", "data.tsv", "--against", "attacked", *ONE_EXAMPLE)),
    ),
    "attacked/examples.jsonl": (
        Command(("attack", "model", "--data", "data.tsv", "--against", "attacked", *ONE_EXAMPLE)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One damaged or rewritten input and the command that reads it.

    Attributes:
        area: kind of the input.
        name: what was done to it.
        inputs: valid files and folders that the command needs, copied into the mutant's folder.
        files: content in place of theirs, by path; None removes one, an empty dict's place is a folder.
        touched: paths of which an error must name one, or a part of it.
        arguments: of the command; writes to `out` if that is among them.
        expected: what the command must do.
        answer: name of the valid input's answer that this one must equal.
        replaces: whether there is an output of an earlier command, and `--force`.
    """

    area: str
    name: str
    inputs: tuple[str, ...]
    files: Files
    touched: tuple[str, ...]
    arguments: tuple[str, ...]
    expected: Expected = "any"
    answer: str = ""
    replaces: bool = False


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


# --- valid inputs ---------------------------------------------------------------------------------


@dataclass
class Valid:
    """A folder of valid inputs, and what commands answer to them."""

    folder: Path
    answers: dict[str, str] = field(default_factory=dict)
    options: frozenset[str] = frozenset()

    def files(self, name: str) -> dict[str, bytes]:
        """The files of one of its folders."""
        return {
            path.name: path.read_bytes() for path in sorted((self.folder / name).iterdir()) if path.is_file()
        }

    def rows(self) -> list[tuple[str, str]]:
        return make_rows(ROWS)


def make_valid(folder: Path, *, with_artifact: bool = True) -> Valid:
    """Make all valid inputs below `folder`, and note what commands answer to them.

    Args:
        with_artifact: also those that take seconds: an exported artifact, and a report on it.
    """
    from compressor.options import ColumnsConfig

    valid = Valid(folder, options=frozenset(ColumnsConfig.model_fields))
    make_model(folder / "model", layers=1)
    rows = valid.rows()
    write_tsv(folder / "data.tsv", rows)
    table = [{"text": text, "label": label} for text, label in rows]
    generator = random.Random(0)
    plain = {
        "csv": known._csv_plain,
        "jsonl": known._jsonl_plain,
        "json": known._json_array,
        "parquet": known._parquet_plain,
    }
    for kind, form in plain.items():
        (folder / f"data.{kind}").write_bytes(form(table, generator)[0])
    make_recipe(folder / "recipe.yaml", "model", "data.tsv")
    steps = {
        "pruned": ("prune", "model", "--calibration", "data.tsv", *WANDA),
        "packed": ("pack", "pruned"),
        "perturbed": ("perturb", "model", "--data", "data.tsv", *TYPOS, *SHORT),
        "attacked": ("attack", "model", "--data", "data.tsv", *ONE_EXAMPLE),
    }
    if with_artifact:
        steps["artifact"] = ("export", "pruned", "--data", "data.tsv", "--parity-examples", "8", *SHORT)
        steps["report"] = (*_with_input(ARTIFACT_COMMANDS[-1], "artifact"),)
    for name, arguments in steps.items():
        _run_valid(folder, (*arguments, "--output", name))
    if with_artifact:
        shutil.copytree(folder / "report", folder / "report2")
    _note_answers(valid, with_artifact=with_artifact)
    return valid


def _run_valid(folder: Path, arguments: Sequence[str]) -> str:
    code, text, _ = run_in(folder, arguments)
    if code != DONE:
        raise RuntimeError(f"a valid input was not taken: {' '.join(arguments)}: exit {code}: {text}")
    return text


def _note_answers(valid: Valid, *, with_artifact: bool) -> None:
    asked = [(command, "data.tsv", "data") for command in DATA_COMMANDS[:3]]
    asked += [(command, "model", "model") for command in MODEL_COMMANDS[:5]]
    asked += [(command, "recipe.yaml", "recipe") for command in RECIPE_COMMANDS[:1]]
    if with_artifact:
        asked += [
            (command, "artifact", "artifact") for command in ARTIFACT_COMMANDS[:1] + ARTIFACT_COMMANDS[3:4]
        ]
    for command, place, area in asked:
        output = valid.folder / OUTPUT
        arguments = _with_input(command, place) + (("--output", OUTPUT) if command.writes else ())
        text = _run_valid(valid.folder, arguments)
        valid.answers[f"{area} {command.name}"] = answer_of(output, text)
        shutil.rmtree(output, ignore_errors=True)


def _with_input(command: Command, place: str) -> tuple[str, ...]:
    return tuple(place if word == "INPUT" else word for word in command.arguments)


def answer_of(output: Path, printed: str) -> str:
    """What a command made of its input, without times and paths: weights, rows with their answers, or what
    it printed.
    """
    weights = output / "model.safetensors"
    if weights.is_file():
        _, body = mutations.split_safetensors(weights.read_bytes())
        return hashlib.sha256(body).hexdigest()
    packed = output / "packed.safetensors"
    if packed.is_file():
        header, _ = mutations.split_safetensors(packed.read_bytes())
        return str(json.loads(header["__metadata__"]["packed"])["sha256"])
    rows = output / "perturbed.jsonl"
    if rows.is_file():
        # Typos are drawn in the order of the rows; clean texts are the same in any.
        found = [json.loads(line) for line in rows.read_text(encoding="utf-8").split("\n") if line]
        lines = sorted(
            json.dumps([row["label"], row["texts"]["clean"], row["right"]["clean"]]) for row in found
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    inspected = output / "inspection.json"
    if inspected.is_file():
        facts = json.loads(inspected.read_text(encoding="utf-8"))
        return json.dumps({key: facts[key] for key in ("labels", "sparsity", "layers")}, sort_keys=True)
    return printed


# --- making mutants -------------------------------------------------------------------------------


def make_mutant(valid: Valid, seed: int, number: int, areas: Sequence[str] = ()) -> Mutant:
    """The mutant of a number: the same whenever it is made.

    Args:
        areas: to choose from in place of all.
    """
    generator = random.Random(f"{seed}:{number}")
    shares = {name: share for name, (share, _) in AREAS.items() if not areas or name in areas}
    area = generator.choices(list(shares), list(shares.values()))[0]
    return AREAS[area][1](valid, generator)


def _choose(commands: Sequence[Command], generator: random.Random) -> Command:
    return generator.choices(commands, [command.weight for command in commands])[0]


def _mutant(
    area: str,
    name: str,
    command: Command,
    place: str,
    files: Files,
    generator: random.Random,
    *,
    inputs: Sequence[str],
    touched: Sequence[str] = (),
    expected: Expected = "any",
    options: tuple[str, ...] = (),
) -> Mutant:
    arguments = _with_input(command, place) + options
    replaces = command.writes and "--dry-run" not in arguments and generator.random() < 0.1
    if command.writes:
        arguments += ("--output", OUTPUT, *(("--force",) if replaces else ()))
    return Mutant(
        area, name, tuple(inputs), files, tuple(touched) or (place,), arguments, expected,
        f"{area} {command.name}", replaces
    )  # fmt: skip


def data_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """A damaged file of labelled texts."""
    kind = generator.choice(known.FORMATS)
    content = (valid.folder / f"data.{kind}").read_bytes()
    damages: dict[str, tuple[mutations.Mutator, ...]] = {
        "csv": (lambda text, draw: mutations.damage_table(text, draw, ","),) * 3 + (mutations.reencode,),
        "tsv": (lambda text, draw: mutations.damage_table(text, draw, "\t"),) * 3 + (mutations.reencode,),
        "jsonl": (mutations.damage_json_lines,) * 3 + (mutations.reencode,),
        "json": (mutations.damage_json,) * 3 + (mutations.reencode,),
        "parquet": (mutations.damage_parquet,) * 3,
    }
    name, content = generator.choice((*damages[kind], mutations.damage_bytes))(content, generator)
    suffix = (
        kind
        if generator.random() < 0.95
        else generator.choice((*known.FORMATS, "CSV", "txt", "csv.gz", "arrow", ""))
    )
    file = f"data.{suffix}".rstrip(".")
    if generator.random() < 0.01:
        name, content = "its suffix alone", b""
    return _mutant(
        "data", f"{kind} as {file}: {name}", _choose(DATA_COMMANDS, generator), file, {file: content},
        generator,
        inputs=("model", "artifact") if valid.answers.get("artifact perturb") else ("model",),
    )  # fmt: skip


def known_data_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """A file of labelled texts that means the same, or that must be refused."""
    is_wrong = generator.random() < 0.3
    if is_wrong:
        found = known.wrong_data(valid.rows(), generator)
    else:
        found = known.rewrite_data(valid.rows(), generator, valid.options)
    (file,) = found.files
    commands = [command for command in DATA_COMMANDS[:3] if not command.depends & found.changes]
    # Pruning reads no labels, and fine-tuning takes whatever classes there are.
    if is_wrong and "label" in found.name:
        commands = [DATA_COMMANDS[2]]
    return _mutant(
        "data", found.name, _choose(commands, generator), file, found.files, generator, inputs=("model",),
        expected=found.expected, options=found.options,
    )  # fmt: skip


def configuration_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """A classifier with a damaged configuration or tokenizer."""
    file = generator.choice(("config.json",) * 3 + ("tokenizer_config.json",) * 2 + ("tokenizer.json",) * 3
                            + ("special_tokens_map.json", "vocab.txt"))  # fmt: skip
    content = (valid.folder / "model" / file).read_bytes()
    damage: mutations.Mutator = mutations.damage_bytes
    if file != "vocab.txt" and generator.random() < 0.75:
        damage = mutations.damage_json
    elif generator.random() < 0.1:
        damage = mutations.reencode
    name, content = damage(content, generator)
    files: Files = {f"model/{file}": content}
    if file == "vocab.txt":
        # Otherwise it is not read.
        files["model/tokenizer.json"] = None
    return _model_mutant("model", f"{file}: {name}", files, generator)


def _model_mutant(area: str, name: str, files: Files, generator: random.Random) -> Mutant:
    command = _choose(MODEL_COMMANDS, generator)
    return _mutant(
        area,
        name,
        command,
        "model",
        files,
        generator,
        inputs=("model", "data.tsv"),
        touched=(*files, "model"),
    )


def checkpoint_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """A classifier with damaged weights."""
    content = (valid.folder / "model/model.safetensors").read_bytes()
    if generator.random() < 0.12:
        return _shard_mutant(valid, generator)
    damage = generator.choice(
        (
            mutations.damage_bytes,
            mutations.damage_safetensors_header,
            mutations.damage_tensors,
            mutations.damage_tensors,
        )
    )
    name, content = damage(content, generator)
    return _model_mutant(
        "model", f"model.safetensors: {name}", {"model/model.safetensors": content}, generator
    )


def _shard_mutant(valid: Valid, generator: random.Random) -> Mutant:
    found = known._sharded(valid.files("model"), generator)
    files: Files = {f"model/{name}": content for name, content in found.files.items()}
    file = generator.choice([name for name, content in files.items() if content is not None])
    content = files[file]
    if content is None or generator.random() < 0.15:
        name, files[file] = "missing", None
    else:
        damage = mutations.damage_json if file.endswith(".json") else mutations.damage_bytes
        name, files[file] = damage(content, generator)
    return _model_mutant("model", f"{file.removeprefix('model/')}: {name}", files, generator)


def known_model_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """A classifier that means the same, or that must be refused."""
    is_wrong = generator.random() < 0.4
    found = (known.wrong_model if is_wrong else known.rewrite_model)(valid.files("model"), generator)
    files: Files = {f"model/{name}": content for name, content in found.files.items()}
    # Inspecting reads no tokenizer's limits, packing reads no configuration: they have their own kinds of
    # damage.
    commands = [MODEL_COMMANDS[1], MODEL_COMMANDS[3]]
    # A rewritten tokenizer or configuration decides what a training sees as little as what a pruning does.
    return _mutant(
        "model", found.name, _choose(commands, generator), "model", files, generator, inputs=("model",
        "data.tsv"),
        touched=(*files, "model"), expected=found.expected,
    )  # fmt: skip


def artifact_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """An artifact with a damaged file, which its manifest may list as it is now."""
    file = generator.choice(("model.onnx",) * 4 + ("manifest.json",) * 3 + ("config.json", "tokenizer.json",
    "tokenizer_config.json",
                            "bom.cdx.json"))  # fmt: skip
    artifact = valid.files("artifact")
    damage: mutations.Mutator = mutations.damage_bytes
    if file == "model.onnx":
        damage = generator.choice((mutations.damage_bytes, mutations.damage_onnx, mutations.damage_onnx))
    elif generator.random() < 0.8:
        damage = mutations.damage_json
    name, content = damage(artifact[file], generator)
    files: Files = {f"artifact/{file}": content}
    is_listed = file != "manifest.json" and generator.random() < 0.75
    if is_listed:
        files["artifact/manifest.json"] = _listing(artifact["manifest.json"], {file: content})
    return _mutant(
        "artifact", f"{file}: {name}{', listed' if is_listed else ''}", _choose(ARTIFACT_COMMANDS,
        generator), "artifact",
        files, generator, inputs=("model", "artifact", "data.tsv"), touched=(*files, "artifact"),
    )  # fmt: skip


def _listing(manifest: bytes, changed: Mapping[str, bytes]) -> bytes:
    """A manifest with the checksums of changed files."""
    value = json.loads(manifest)
    for name, content in changed.items():
        value["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return mutations.dump_json(value)


def known_artifact_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """An artifact that means the same, or that is not what was exported."""
    artifact = valid.files("artifact")
    commands = [ARTIFACT_COMMANDS[0], ARTIFACT_COMMANDS[3]]
    if generator.random() < 0.6:
        found = known.rewrite_artifact(artifact, generator)
    else:
        file = generator.choice(sorted(set(artifact) - {"manifest.json"}))
        content: bytes | None = artifact[file]
        while content == artifact[file]:
            name, content = mutations.damage_bytes(artifact[file], generator)
        if generator.random() < 0.2:
            name, content = "removed", None
        found = known.Rewrite(f"{file}: {name}", {file: content}, "refused")
        commands = [*commands, ARTIFACT_COMMANDS[1], ARTIFACT_COMMANDS[2]]
    files: Files = {f"artifact/{name}": content for name, content in found.files.items()}
    return _mutant(
        "artifact", found.name, _choose(commands, generator), "artifact", files, generator,
        inputs=("model", "artifact", "data.tsv"), touched=(*files, "artifact"), expected=found.expected,
    )  # fmt: skip


def packed_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """A damaged packed classifier, which its manifest may list as it is now."""
    packed = valid.files("packed")
    file = generator.choice(("packed.safetensors",) * 3 + ("manifest.json", "config.json", "tokenizer.json"))
    damage: mutations.Mutator = mutations.damage_bytes
    if file.endswith(".json"):
        damage = generator.choice((mutations.damage_json, mutations.damage_bytes))
    else:
        damage = generator.choice(
            (
                mutations.damage_bytes,
                mutations.damage_safetensors_header,
                mutations.damage_tensors,
                _damage_packing,
            )
        )
    name, content = damage(packed[file], generator)
    files: Files = {f"packed/{file}": content}
    if file != "manifest.json" and generator.random() < 0.8:
        files["packed/manifest.json"] = _listing(packed["manifest.json"], {file: content})
    return _mutant(
        "packed", f"{file}: {name}", _choose(PACKED_COMMANDS, generator), "packed", files, generator,
        inputs=("packed",),
        touched=(*files, "packed"),
    )  # fmt: skip


def _damage_packing(content: bytes, generator: random.Random) -> mutations.Damaged:
    """Change the header that `compress pack` writes within that of safetensors."""
    header, body = mutations.split_safetensors(content)
    value = json.loads(header["__metadata__"]["packed"])
    name, value = mutations.damage_value(value, generator)
    header["__metadata__"]["packed"] = json.dumps(value)
    return f"packing {name}", mutations.join_safetensors(header, body)


def record_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """A damaged record of an earlier command, which another one reads."""
    files = [name for name in RECORD_COMMANDS if (valid.folder / name).is_file()]
    file = generator.choice(files)
    content = (valid.folder / file).read_bytes()
    damage: mutations.Mutator = mutations.damage_bytes
    if generator.random() < 0.8:
        damage = mutations.damage_json_lines if file.endswith("jsonl") else mutations.damage_json
    name, content = damage(content, generator)
    folder = Path(file).parent.name
    others = ("report2",) if folder == "report" else ("model", "data.tsv")
    return _mutant(
        "record", f"{file}: {name}", _choose(RECORD_COMMANDS[file], generator), file, {file: content},
        generator,
        inputs=(folder, *others), touched=(file, folder),
    )  # fmt: skip


def recipe_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """A damaged recipe."""
    content = (valid.folder / "recipe.yaml").read_bytes()
    damage = generator.choice(
        (mutations.damage_yaml_values, mutations.damage_yaml_values, mutations.damage_yaml_lines,
        mutations.damage_yaml_lines,
         mutations.damage_bytes)
        if generator.random() < 0.95 else (mutations.reencode,)
    )  # fmt: skip
    name, content = damage(content, generator)
    options: tuple[str, ...] = ()
    if generator.random() < 0.15:
        # Also the other way in which values come.
        key = generator.choice(
            (
                "prune.sparsity",
                "run.seed",
                "data.max_length",
                "attack.attack",
                "prune",
                "x.y",
                "",
                "validate.gates",
            )
        )
        value = generator.choice(mutations.NASTY_VALUES)
        setting = f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        # No program can be given a zero byte, or half of a character, as an argument.
        options = ("--set", setting.replace("\0", "").encode("utf-8", "ignore").decode())
    return _mutant(
        "recipe", f"recipe: {name}", _choose(RECIPE_COMMANDS, generator), "recipe.yaml",
        {"recipe.yaml": content}, generator,
        inputs=("model", "data.tsv"), options=options,
    )  # fmt: skip


def known_recipe_mutant(valid: Valid, generator: random.Random) -> Mutant:
    """A recipe that means the same."""
    found = known.rewrite_recipe((valid.folder / "recipe.yaml").read_bytes(), generator)
    return _mutant(
        "recipe", found.name, RECIPE_COMMANDS[0], "recipe.yaml", found.files, generator, inputs=(),
        expected=found.expected
    )  # fmt: skip


AREAS: dict[str, tuple[float, Callable[[Valid, random.Random], Mutant]]] = {
    "data": (0.20, data_mutant),
    "known data": (0.15, known_data_mutant),
    "configuration": (0.13, configuration_mutant),
    "checkpoint": (0.10, checkpoint_mutant),
    "known model": (0.10, known_model_mutant),
    "artifact": (0.09, artifact_mutant),
    "known artifact": (0.03, known_artifact_mutant),
    "packed": (0.04, packed_mutant),
    "record": (0.05, record_mutant),
    "recipe": (0.09, recipe_mutant),
    "known recipe": (0.02, known_recipe_mutant),
}
# What needs no exported artifact.
WITHOUT_ARTIFACT = tuple(name for name in AREAS if "artifact" not in name)


# --- running one ----------------------------------------------------------------------------------


class TimeLimitError(BaseException):
    """A command took longer than `HANG_SECONDS`; no handler of errors takes it for one."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise a `TimeLimitError` in the block after so many seconds; a timer that runs already goes on after
    it.
    """

    def stop(number: int, frame: object) -> None:
        raise TimeLimitError

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, left - (time.monotonic() - start)) if left else 0)


@contextlib.contextmanager
def captured() -> Iterator[Any]:
    """Collect what the block writes on stdout and stderr, libraries in C included, in two files."""
    with tempfile.TemporaryFile(dir="/tmp") as out, tempfile.TemporaryFile(dir="/tmp") as err:  # noqa: S108
        streams = sys.stdout, sys.stderr
        for stream in streams:
            stream.flush()
        kept = os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        # Not pytest's, nor what an earlier command has put in their place.
        sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
        sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
        found = {"out": "", "err": ""}
        try:
            yield found
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.close()
            sys.stdout, sys.stderr = streams
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            for name, file in (("out", out), ("err", err)):
                file.seek(0)
                found[name] = file.read().decode("utf-8", "replace")


def run_in(folder: Path, arguments: Sequence[str]) -> tuple[int | None, str, str]:
    """Run a command line in a folder; return its exit code and what it wrote on stdout and stderr.

    The code is None where an exception escaped, whose traceback is then at the end of stderr.
    """
    import traceback

    import cli

    here = Path.cwd()
    os.chdir(folder)
    code: int | None = None
    escaped = ""
    try:
        with captured() as found, time_limit(HANG_SECONDS):
            try:
                code = cli.execute(list(arguments))
            except BaseException:
                escaped = traceback.format_exc()
    finally:
        os.chdir(here)
    return code, found["out"], found["err"] + escaped


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
    with _temporary_files_in(temporary):
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


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


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


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder, with a file's checksum, a link's target, or nothing for a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = ""
    return found


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
                yield f"wrong result: the answer is not that to the valid input ({found[:60]} and not {right[:60]})"


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
    if re.search(r"<class '|object at 0x|\[Errno", text):
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
        from exporters.manifest import artifact_problems

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
    """What groups failures of one cause: the exception and its innermost frame, or the fault, area and command."""
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


# --- running all ---------------------------------------------------------------------------------------------------


def prepare_process(surroundings: Path) -> None:
    """Set what libraries read once, before any is imported: one thread, no network, caches in a folder of ours."""
    own = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(surroundings / "hub"),
        "TOKENIZERS_PARALLELISM": "false",
        "COMPRESS_CACHE": str(surroundings / "cache"),
        "MPLCONFIGDIR": str(surroundings / "matplotlib"),
        "COLUMNS": "200",
    }
    os.environ.update(own)
    for name in ("hub", "cache", "matplotlib"):
        (surroundings / name).mkdir(parents=True, exist_ok=True)


def import_all() -> None:
    """Import what commands import when they run, once for all processes that are forked from this one."""
    import importlib

    names = (
        "cli", "torch", "transformers", "datasets", "onnx", "onnxruntime", "pandas", "pyarrow.parquet", "safetensors.torch",
        "transformers.models.bert.modeling_bert", "compressor.finetuning", "compressor.pruning", "compressor.baselines",
        "compressor.inspection", "compressor.pipeline", "compressor.stage_runs", "compressor.dry_run", "compressor.souping",
        "compressor.adaptive.prune", "compressor.randomized.prune", "compressor.robustness.attack_stage",
        "compressor.robustness.perturb", "compressor.validation.run", "exporters.artifact", "exporters.packed",
        "exporters.triton", "compressor.overrides", "compressor.tables", "compressor.export_tables",
    )  # fmt: skip
    for name in names:
        importlib.import_module(name)
    from compressor.robustness.resources import import_textattack

    import_textattack()


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
    """Run mutants in one forked process; return how many are done, the one that ended the process included."""
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
        from compressor.environment import describe_environment
        from compressor.options import RunConfig

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
                line = f"{tally.mutants}/{count}: {tally.failures} failures of {len(tally.groups)} kinds, {pace:.2f} s each"
                print(line, file=sys.stderr, flush=True)

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
    """`make_valid` in a process of its own, so that this one stays fit to be forked: an export starts threads."""
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
