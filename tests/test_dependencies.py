"""What the program imports is declared, what is declared is used, and all of it is pinned."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = {"cli", "compressor", "exporters"}
# Copied into model repositories; it says itself what it needs.
COPIED = {ROOT / "exporters/triton/client.py"}
# Declared and imported by no module of the program.
USED_OTHERWISE = {
    "onnxscript": "torch.onnx writes graphs with it",
    "optimum": "loads artifacts, as README.md and docs/exporting.md show",
    "optimum-onnx": "has optimum's classes for ONNX Runtime",
    "flair": "TextAttack imports it, and works with recent versions alone",
}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    return {normalized(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


DEPENDENCIES = names_of(PROJECT["dependencies"])
DECLARED = DEPENDENCIES | names_of([entry for name in ("cpu", "gpu", "tracking") for entry in EXTRAS[name]])


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
    missing = {name: imported()[name] for name, names in distributions.items() if not names & DECLARED}
    assert missing == {}


def test_what_is_declared_is_imported_or_has_a_reason(distributions):
    used = set().union(*distributions.values())
    assert DEPENDENCIES - used == set(USED_OTHERWISE)


def test_what_is_declared_is_pinned():
    pins = names_of([line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line])
    # The tests run with the other runtime.
    assert DECLARED - pins <= {"onnxruntime-gpu"}
