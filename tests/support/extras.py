"""The package of docs/how-to/extend.md, installed as an index would: its modules and its metadata."""

import re
import tomllib
from pathlib import Path

from project import ROOT

PAGE = ROOT / "docs" / "how-to" / "extend.md"
PACKAGE = "compress_extras"


def files_of_page() -> dict[str, str]:
    """The content of each file that the page shows, by its path."""
    found = re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    return dict(found)


def install(folder: Path) -> None:
    """Fill a folder that is to be on `sys.path` with the package, as pip would."""
    files = files_of_page()
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / PACKAGE / "__init__.py").touch()
    register(folder, project["name"], project["entry-points"], project["version"])


def register(folder: Path, name: str, groups: dict[str, dict[str, str]], version: str = "1.0") -> None:
    """Write the metadata of a package that registers objects."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{entry} = {place}" for entry, place in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
