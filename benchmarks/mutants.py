"""Mutants: a damaged or rewritten input of a tiny model and a command that reads it, by their numbers."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import known_answers as known
from benchmarks import mutations
from benchmarks.in_process import run_in
from benchmarks.known_answers import Expected, Files
from benchmarks.tiny_inputs import MAX_LENGTH, make_model, make_recipe, make_rows, write_tsv

ROWS = 24
OUTPUT = "out"
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
    Command(
        (
            "vocabulary",
            "INPUT",
            "--vocabulary",
            "train.tsv",
            "--data",
            "data.tsv",
            "--vocabulary-agreement",
            "0",
            *SHORT,
        ),
        0.5,
    ),
    Command(("attack", "INPUT", "--data", "data.tsv", *ONE_EXAMPLE), 0.3),
    Command(("export", "INPUT", "--data", "data.tsv", "--parity-examples", "4", *SHORT), 0.01),
)
ARTIFACT_COMMANDS = (
    Command(("inspect", "INPUT"), 2),
    Command(("verify", "INPUT"), 1, writes=False),
    Command(("triton", "INPUT"), 3),
    Command(("perturb", "INPUT", "--data", "data.tsv", *TYPOS, *SHORT), 3),
    Command(("verify", "INPUT", "--run"), 1, writes=False),
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


def make_valid(folder: Path, *, all_kinds: bool = True) -> Valid:
    """Make all valid inputs below `folder`, and note what commands answer to them.

    Args:
        all_kinds: also those that take seconds: an exported artifact, a report on it, an attack's records.
    """
    from compressor.options import ColumnsConfig

    valid = Valid(folder, options=frozenset(ColumnsConfig.model_fields))
    make_model(folder / "model", layers=1)
    for name, content in known.plain_data(valid.rows()).items():
        (folder / name).write_bytes(content or b"")
    # Of other texts than the test data: what a model was made with proves nothing on it.
    write_tsv(folder / "train.tsv", make_rows(ROWS, seed=1))
    make_recipe(folder / "recipe.yaml", "model", "train.tsv", "data.tsv")
    steps = {
        "pruned": ("prune", "model", "--calibration", "train.tsv", *WANDA),
        "packed": ("pack", "pruned"),
        "perturbed": ("perturb", "model", "--data", "data.tsv", *TYPOS, *SHORT),
    }
    if all_kinds:
        steps["attacked"] = ("attack", "model", "--data", "data.tsv", *ONE_EXAMPLE)
        steps["artifact"] = ("export", "pruned", "--data", "data.tsv", "--parity-examples", "8", *SHORT)
        steps["report"] = _with_input(ARTIFACT_COMMANDS[-1], "artifact")
    for name, arguments in steps.items():
        _run_valid(folder, (*arguments, "--output", name))
    if all_kinds:
        shutil.copytree(folder / "report", folder / "report2")
    _note_answers(valid, all_kinds=all_kinds)
    return valid


def _run_valid(folder: Path, arguments: Sequence[str]) -> str:
    code, text, error = run_in(folder, arguments)
    if code != DONE:
        raise RuntimeError(f"a valid input was not taken: {' '.join(arguments)}: exit {code}: {error}")
    return text


def _note_answers(valid: Valid, *, all_kinds: bool) -> None:
    asked = [(command, "data.tsv", "data") for command in DATA_COMMANDS[:3]]
    asked += [(command, "model", "model") for command in MODEL_COMMANDS[:5]]
    asked += [(command, "recipe.yaml", "recipe") for command in RECIPE_COMMANDS[:1]]
    if all_kinds:
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
    found = known.sharded(valid.files("model"), generator)
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
        # The marker is not listed: it says whose folder it is, and nothing of what is in it.
        file = generator.choice(sorted(json.loads(artifact["manifest.json"])["files"]))
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
        inputs=("model", "data.tsv", "train.tsv"), options=options,
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
