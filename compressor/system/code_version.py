"""Which of this program's sources decide a stage's result, and a checksum of them.

They are the stage's module and every module of ours that it imports, directly or through others, wherever
the import stands: at the top of a file, in a function, or as `package.module:function` in a string; what is
imported for type checkers alone never runs and does not count. With them go the word lists (`*.txt`) in their
folders. Left out is what only shows a result: progress, tables, pages and plots. A stage whose result is to
be read needs that too, with templates and styles.

Of what another package registers, the version of that package decides, and the sources of the top package
that the entry point names.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from compressor.errors import UserError
from compressor.options import package_of
from compressor.system.files import sha256_of

PACKAGES = ("compressor", "exporters")
SHOWING = frozenset(
    f"compressor.{name}"
    for name in ("attacks.page", "display.drawing", "display.marking", "display.pages", "system.console")
)
WORD_LISTS, TEMPLATES = (".txt",), (".j2", ".css", ".json")


@functools.cache
def code_version(module: str, *, is_shown: bool = False) -> str:
    """A SHA-256 over the sources that decide what a stage does; the same wherever they are installed.

    Args:
        module: of the stage.
        is_shown: whether its result is to be read, so that what shows it counts as well.
    """
    digest = hashlib.sha256()
    for name, path in sorted(sources_of(module, is_shown=is_shown).items()):
        digest.update(f"{sha256_of(path)}  {name}\n".encode())
    return digest.hexdigest()


def plugin_version(entry: EntryPoint) -> dict[str, str]:
    """Version of the package that registers an object, and a SHA-256 over the sources that it is of.

    Raises:
        UserError: the sources are missing.
    """
    top = entry.module.partition(".")[0]
    spec = find_spec(top)
    if spec is None:
        raise UserError(f"{entry.name}: there is no module {top}, though {package_of(entry)} registers it")
    digest = hashlib.sha256()
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = {path.relative_to(folder).as_posix(): path for folder in folders for path in folder.rglob("*.py")}
    if not folders and spec.origin is not None:
        files[Path(spec.origin).name] = Path(spec.origin)
    for name, path in sorted(files.items()):
        digest.update(f"{sha256_of(path)}  {name}\n".encode())
    return {"package": package_of(entry), "code": digest.hexdigest()}


def sources_of(module: str, *, is_shown: bool = False) -> dict[str, Path]:
    """The files that decide what a stage does, by their path below the folder of our packages."""
    left_out = frozenset() if is_shown else SHOWING
    modules, waiting = {module}, [module]
    while waiting:
        found = _imports(waiting.pop()) - modules - left_out
        modules |= found
        waiting += found
    sources = [_file(name) for name in modules]
    suffixes = WORD_LISTS + (TEMPLATES if is_shown else ())
    folders = {path.parent for path in sources} | {path.parent / "templates" for path in sources}
    beside = [
        path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.suffix in suffixes
    ]
    root = _root()
    return {path.relative_to(root).as_posix(): path for path in [*sources, *beside]}


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """The modules of ours that a module names."""
    tree = ast.parse(_file(module).read_bytes())
    named = {name for name in _named(tree) if name.partition(".")[0] in PACKAGES and _is_ours(name)}
    # Importing a module runs the packages above it.
    return frozenset(named | {name.rpartition(".")[0] for name in named if "." in name})


def _named(tree: ast.Module) -> Iterator[str]:
    """All that may be a module's name: of `from a import b`, where b may be a module, a and a.b."""
    for node in _that_run(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module, colon, _ = node.value.partition(":")
            if colon:
                yield module


def _that_run(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, without what stands under `if TYPE_CHECKING`."""
    yield node
    below: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        below = node.orelse
    for child in below:
        yield from _that_run(child)


@functools.cache
def _root() -> Path:
    spec = find_spec(PACKAGES[0])
    if spec is None or spec.origin is None:
        raise RuntimeError(f"package {PACKAGES[0]} has no files")
    return Path(spec.origin).parent.parent


def _candidates(module: str) -> tuple[Path, Path]:
    path = _root().joinpath(*module.split("."))
    return path / "__init__.py", path.with_name(f"{path.name}.py")


def _is_ours(module: str) -> bool:
    return module.replace(".", "").isidentifier() and any(path.is_file() for path in _candidates(module))


def _file(module: str) -> Path:
    """The source of one of our modules."""
    return next(path for path in _candidates(module) if path.is_file())
