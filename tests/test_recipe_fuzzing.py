"""Random recipes, whole and broken, through the command line: never a traceback, never half an output."""

import contextlib
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cli
from compressor.config.recipe import Recipe, dump_recipe, load_recipe
from compressor.options.pruning import ROBUST_OPTIONS

SCHEMA = Recipe.model_json_schema()
FEW = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=50)

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


# Is there, so that a run gets as far as its model, which is not.
DATA = "data.tsv"

# What is checked before anything is read is right, so that more than it is met.
KNOWN = {
    "pattern": st.sampled_from(["unstructured", "2:4", "structured"]),
    "gates": st.lists(st.sampled_from(["accuracy >= 0.5", "sparsity <= 1e-1"]), max_size=2),
    "scope": st.none(),
    "substitution_mixture": st.sampled_from(["words", "words:2,letters"]),
    "train": st.sampled_from([DATA, None]),
    "calibration": st.just(DATA),
    "test": st.just(DATA),
    "encoding": st.sampled_from(["auto", "utf-8", "cp1252", "Latin-1"]),
    # A goal needs its table, and a table a goal.
    "speedup": st.none(),
    "latency_budget_ms": st.none(),
    "latency_table": st.none(),
    "algorithm_options": st.just({}),
    "attack_options": st.just({}),
    "label_map": st.none()
    | st.dictionaries(
        TEXTS.map(str.strip).filter(bool),
        TEXTS.filter(str.strip) | st.integers(-9, 9),
        min_size=1,
        max_size=3,
    ),
}


def consistent(section, fields):
    """A section without contradictions that are refused: options of what is not done."""
    if "robust" in fields and section.keys() & set(ROBUST_OPTIONS):
        section["robust"] = True
    if section.get("recovery_steps") == 0:
        section.pop("recovery_robust", None)
    return section


def values_of(schema):
    """A strategy for what a JSON schema of ours allows; what is not required may be left out."""
    if "$ref" in schema:
        return values_of(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of(*map(values_of, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "object":
        required = set(schema.get("required", []))
        fields = {
            name: KNOWN[name] if name in KNOWN else values_of(field)
            for name, field in schema["properties"].items()
        }
        return st.fixed_dictionaries(
            {name: value for name, value in fields.items() if name in required},
            optional={name: value for name, value in fields.items() if name not in required},
        ).map(lambda section: consistent(section, schema["properties"]))
    if kind == "array":
        unique = schema.get("uniqueItems", False)
        return st.lists(
            values_of(schema["items"]), min_size=schema.get("minItems", 0), max_size=3, unique=unique
        )
    if "pattern" in schema:
        # Names with commas between them, each at most once.
        return st.from_regex(schema["pattern"], fullmatch=True).filter(
            lambda text: len(names := text.replace(" ", "").split(",")) == len(set(names))
        )
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if kind == "integer":
        return st.integers(low if above is None else above + 1, high if below is None else below - 1)
    if kind == "number":
        return st.floats(
            low if above is None else above,
            high if below is None else below,
            exclude_min=above is not None,
            exclude_max=below is not None,
            allow_nan=False,
            allow_infinity=False,
        )
    return {"boolean": st.booleans(), "null": st.none(), "string": TEXTS}[kind]


RECIPES = values_of(SCHEMA)

NASTY = st.sampled_from(
    [
        10**400, -(10**400), 10**5000 - 1, 1e308, float("nan"), float("inf"), -0.0, 2**63, "a" * 5000,
        "\ud800", "\0", "../../../etc/passwd", "/", "/dev/null", ".", "~", "", " ", "\n", "{}",
        "!!python/object:x", "*a", [], {}, [[[[[]]]]], {"": None}, b"\xff", None, True, "nan", "1e999",
        "0x" + "f" * 5000, "model.tsv:", "glue/sst2/x", "a/b/c/d", "-", "--force", "none.tsv", "none.csv/x",
        "\x85", "0:1", "3:2:1",
    ]
)  # fmt: skip
FRAGMENTS = st.sampled_from(
    [
        b"\xff\xfe", b"\0", b"\t", b"&a ", b"*a", b"[", b"]", b"{", b"}", b": ", b"- ", b"!!int ", b"!x ",
        b"|\n", b"%YAML 9.9\n", b"---\n", b"...\n", b"<<: ", b"'", b'"', b"\\", b"#", b"? ", b"9" * 5000,
        b"[" * 500, b"\xc2\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"=", b"\n  \n", b"\r",
    ]
)  # fmt: skip


def paths_in(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_in(inner, (*path, key))


@st.composite
def broken_values(draw):
    """A recipe of which some values or keys are not what they should be."""
    value = draw(RECIPES)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(paths_in(value), key=repr)))
        if not path:
            continue
        section = value
        for key in path[:-1]:
            section = section[key]
        if isinstance(section, dict) and draw(st.booleans()):
            section[f"{path[-1]}{draw(TEXTS)}"] = section.pop(path[-1])
        else:
            section[path[-1]] = draw(NASTY)
    return value


@st.composite
def broken_texts(draw):
    """The text of a recipe, cut and with pieces that YAML makes much of."""
    text = bytearray(dump_recipe(Recipe.model_validate(draw(RECIPES))).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 20)))
        text[start:end] = draw(st.one_of(FRAGMENTS, st.binary(max_size=4)))
    return bytes(text)


def to_yaml(value):
    """YAML in flow style, by hand: PyYAML refuses to write some of what is nasty."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_yaml(key)}: {to_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_yaml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, int) and abs(value) > 10**4000:
        return "9" * 5000
    return {"nan": ".nan", "inf": ".inf"}.get(repr(value), repr(value))


def outcome(*arguments):
    """Exit code and stderr of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.execute([str(argument) for argument in arguments])
    return code, err.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with some data."""
    place = tmp_path / "place"
    place.mkdir()
    (place / DATA).write_text("text\tlabel\na\tx\nb\ty\n", encoding="utf-8")
    monkeypatch.chdir(place)
    return place


def check_refused(folder, arguments):
    code, text = outcome(*arguments)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert code == 2, text
    assert len(errors) == 1, text
    assert "Traceback" not in text
    assert len(text) < 3000
    assert [path.name for path in folder.iterdir()] == [DATA]


@FEW
@given(RECIPES)
def test_any_recipe_is_written_and_read_back_the_same(tmp_path, values):
    recipe = Recipe.model_validate(values)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


@pytest.mark.slow
@FEW
@given(RECIPES)
def test_a_recipe_whose_model_is_not_there_is_one_line(tmp_path, folder, values):
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(Recipe.model_validate(values)), encoding="utf-8")
    check_refused(folder, ["run", path, "--output", folder / "out"])


@MANY
@given(broken_values())
def test_a_recipe_with_odd_values_is_one_line(tmp_path, folder, values):
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(values), encoding="utf-8")
    check_refused(folder, ["run", path, "--output", folder / "out"])


@MANY
@given(broken_texts())
def test_a_broken_text_is_one_line(tmp_path, folder, text):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text)
    check_refused(folder, ["run", path, "--output", folder / "out", "--dry-run"])


@FEW
@given(st.text(max_size=20), st.sampled_from(["{}={}", "{}{}", "prune.{}={}", "run.seed{}={}"]), TEXTS)
def test_any_setting_is_taken_or_one_line(tmp_path, folder, key, form, value):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m/m/m\ndata: {calibration: data.tsv, test: data.tsv}\n", encoding="utf-8")
    check_refused(folder, ["run", path, "--output", folder / "out", "--set", form.format(key, value)])
