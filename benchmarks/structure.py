"""The shape of a checkout's sources, in figures: rooms, imports, cycles, lines, long functions.

    python -m benchmarks.structure [CHECKOUT ...]

A room is a module or package right below `compressor`, or the package `exporters`. An arrow is that a module
of one room imports one of another; upward are those that go against `[tool.importlinter]` of the checkout's
pyproject.toml. A cycle is a set of modules or packages of one parent that import each other in a circle.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results_file import markdown_table

PACKAGES = ("compressor", "exporters")
MOST_LINES = 50
MOST_PARAMETERS = 6
# Prints the imports of a checkout as pairs; in a process of its own, since it is imported from `sys.path`.
IMPORTS = """
import json, sys, grimp
sys.path.insert(0, sys.argv[1])
graph = grimp.build_graph(*sys.argv[2:], cache_dir=None)
pairs = [(a, b) for a in graph.modules for b in graph.find_modules_directly_imported_by(a)]
print(json.dumps(sorted(pairs)))
"""


def imports_of(checkout: Path) -> list[tuple[str, str]]:
    """Importing and imported module, for each import statement's pair."""
    command = [sys.executable, "-c", IMPORTS, str(checkout), *PACKAGES]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [(importer, imported) for importer, imported in json.loads(printed)]


def room_of(module: str) -> str:
    """`compressor.data.texts` is in `compressor.data`, `exporters.onnx` in `exporters`."""
    return ".".join(module.split(".")[: 2 if module.startswith("compressor") else 1])


def layers_of(checkout: Path) -> list[str]:
    """The rooms from the highest to the lowest, as the checkout's contract has them; none without one."""
    settings = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"].get("importlinter", {}).get("contracts", [])
    return next((entry["layers"] for entry in contracts if entry["type"] == "layers"), [])


def cycles_of(imports: list[tuple[str, str]]) -> list[set[str]]:
    """The sets of siblings that import each other in a circle, at every depth."""
    arrows: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for importer, imported in imports:
        first, second = importer.split("."), imported.split(".")
        shared = 0
        while shared < min(len(first), len(second)) and first[shared] == second[shared]:
            shared += 1
        if 0 < shared < min(len(first), len(second)):
            parent = ".".join(first[:shared])
            arrows[parent][first[shared]].add(second[shared])
    return [
        {f"{parent}.{name}" for name in found}
        for parent in sorted(arrows)
        for found in _circles(arrows[parent])
    ]


def _circles(arrows: dict[str, set[str]]) -> Iterator[set[str]]:
    """The strongly connected sets of more than one node."""
    reach = {node: _reachable(node, arrows) for node in list(arrows)}
    seen: set[str] = set()
    for node in sorted(arrows):
        circle = {other for other in reach[node] if node in reach.get(other, ())}
        if node not in seen and len(circle | {node}) > 1:
            yield circle | {node}
            seen |= circle


def _reachable(start: str, arrows: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for other in arrows.get(waiting.pop(), set()) - found:
            found.add(other)
            waiting.append(other)
    return found


def sources_of(checkout: Path) -> list[Path]:
    """`cli.py` and the modules of our packages."""
    return [
        checkout / "cli.py",
        *(path for name in PACKAGES for path in sorted((checkout / name).rglob("*.py"))),
    ]


def functions_of(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, lines of the body without its docstring, and number of parameters of each function of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            given = node.args
            names = [entry.arg for entry in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            yield node.name, lines, len([name for name in names if name not in ("self", "cls")])


def figures_of(checkout: Path) -> dict[str, str]:
    """What the table has of a checkout."""
    imports = imports_of(checkout)
    arrows = {(room_of(a), room_of(b)) for a, b in imports if room_of(a) != room_of(b)}
    layers = layers_of(checkout)
    upward = [(a, b) for a, b in arrows if a in layers and b in layers and layers.index(b) < layers.index(a)]
    files = sources_of(checkout)
    functions = [entry for path in files for entry in functions_of(path)]
    return {
        "rooms": str(len({room_of(module) for pair in imports for module in pair} - {"compressor"})),
        "modules": str(len(files)),
        "arrows between rooms": str(len(arrows)),
        "of these upward": str(len(upward)) if layers else "no contract",
        "cycles": str(len(cycles_of(imports))),
        "lines": str(sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)),
        f"functions over {MOST_LINES} lines": str(sum(lines > MOST_LINES for _, lines, _ in functions)),
        f"functions of more than {MOST_PARAMETERS} parameters": str(
            sum(count > MOST_PARAMETERS for *_, count in functions)
        ),
    }


def main(
    checkouts: Annotated[
        list[Path] | None, typer.Argument(help="Checkouts to compare.", show_default="the working folder")
    ] = None,
) -> None:
    """Print the shape of checkouts side by side."""
    folders = [path.resolve() for path in checkouts or [Path()]]
    figures = [figures_of(folder) for folder in folders]
    rows = [(name, *(entry[name] for entry in figures)) for name in figures[0]]
    print(markdown_table(("figure", *(folder.name for folder in folders)), rows))


if __name__ == "__main__":
    typer.run(main)
