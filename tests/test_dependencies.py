"""What the program imports is declared, what is declared is used, and all of it is pinned."""

import ast
import io
import re
import sys
import tomllib
import zipfile
from email.parser import BytesParser
from importlib.metadata import packages_distributions, version

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from project import ROOT

from compressor.system.carried import WHEELS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = {"cli", "compressor", "exporters"}
# Copied into model repositories; it says itself what it needs.
COPIED = {ROOT / "exporters/triton/client.py"}
# Declared and imported by no module of the program.
USED_OTHERWISE = {
    "onnxscript": "torch.onnx writes graphs with it",
}
# What wheels that are carried require and the program does without, with the reason.
DONE_WITHOUT = {
    "flair": "a module of a few lines stands in for it",
    "editdistance": "Levenshtein has the function that is used, with wheels for more versions of Python",
}
# Imported by a wheel that is carried, and in none of its requirements.
UNDECLARED = {"langdetect"}
CONSTRAINTS = ("constraints.txt", "constraints-transformers4.txt")


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    return {normalized(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


DEPENDENCIES = names_of(PROJECT["dependencies"])
CARRIED = names_of([path.name.split("-")[0] for path in WHEELS.glob("*.whl")])
DECLARED = DEPENDENCIES | names_of(
    [entry for name in ("cpu", "gpu", "openvino", "tracking") for entry in EXTRAS[name]]
)


def required_by_wheels() -> set[str]:
    """Return the packages that the wheels require which are carried."""
    found: set[str] = set()
    for path in WHEELS.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = BytesParser().parse(io.BytesIO(wheel.read(name)))
        found |= names_of([entry for entry in metadata.get_all("Requires-Dist") if "extra ==" not in entry])
    return found


def pins(name: str) -> dict[str, str]:
    """Return the version of each package that a file of constraints has."""
    lines = [line.partition("==") for line in (ROOT / name).read_text().splitlines() if "==" in line]
    return {normalized(package): found for package, _, found in lines}


def imported() -> dict[str, str]:
    """Return the packages of others that the program imports, and for each a module that does."""
    found = {}
    sources = [ROOT / "cli.py", *(path for name in OWN for path in (ROOT / name).rglob("*.py"))]
    for path in set(sources) - COPIED:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for module in modules:
                found[module.partition(".")[0]] = str(path.relative_to(ROOT))
    return {name: path for name, path in found.items() if name not in OWN | sys.stdlib_module_names}


@pytest.fixture(scope="module")
def distributions() -> dict[str, set[str]]:
    """The distributions that each imported package may come from."""
    known = packages_distributions()
    return {name: {normalized(entry) for entry in known.get(name, [name])} for name in imported()}


def test_what_is_imported_is_declared(distributions):
    missing = {
        name: imported()[name] for name, names in distributions.items() if not names & (DECLARED | CARRIED)
    }
    assert missing == {}


def test_what_is_declared_is_imported_or_has_a_reason(distributions):
    used = set().union(*distributions.values())
    of_wheels = required_by_wheels() | UNDECLARED
    assert DEPENDENCIES - used - of_wheels == set(USED_OTHERWISE)


def test_what_carried_wheels_require_is_declared():
    assert required_by_wheels() - DEPENDENCIES == set(DONE_WITHOUT)
    assert UNDECLARED <= DEPENDENCIES


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_what_is_declared_is_pinned(name):
    # The tests run with the other runtime.
    assert DECLARED - set(pins(name)) <= {"onnxruntime-gpu"}
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert pins(name)[normalized(requirement.name)] in requirement.specifier, requirement


def test_the_two_worlds_differ_in_transformers_and_in_what_hangs_on_it():
    default, older = map(pins, CONSTRAINTS)
    assert default["transformers"].startswith("5.")
    assert older["transformers"].startswith("4.57.")
    changed = {name for name in default if older.get(name) != default[name]}
    assert changed == {"transformers", "huggingface-hub", "tokenizers"}
    assert set(older) - set(default) == names_of(EXTRAS["optimum"])


def test_these_tests_run_with_one_of_the_two():
    found = {name: version(name) for name in ("transformers", "huggingface-hub", "tokenizers", "datasets")}
    assert any(found.items() <= pins(name).items() for name in CONSTRAINTS)


def test_versions_of_python_are_those_that_the_pages_name():
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [minor for minor in range(9, 16) if f"3.{minor}.1" in supported] == [11, 12, 13]
