"""What the pages tell people to type: the lines of their blocks of shell, and blocks of Python, in order."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from project import ROOT

REFERENCE = ROOT / "docs" / "reference" / "cli.md"
README = ROOT / "README.md"
BENCHMARKS = ROOT / "benchmarks" / "README.md"
GUIDES = sorted({*(ROOT / "docs").rglob("*.md")} - {REFERENCE})

PROGRAM = ("compress ", "python -m cli ", "torchrun ")
# Blocks of Python that begin so are run as well; others load an artifact that is there.
API = "import compressor\n"
FAILS = "# exit code 1"
# The command whose output is an argument elsewhere, with what stands for it.
ENCODER = "$(python -c 'from compressor.system.assets import encoder_directory as e; print(e())')"

# What a test cannot run, by its first words, and why.
NOT_RUN = {
    "make quickstart": "makes an environment; `compress quickstart`, which it calls, is run first of all",
    "make test": "runs these tests",
    ". .venv/bin/activate": "the tests have an environment",
    'cp -r "$(python -c': "copies the packaged encoder; the stand-in lies there",
    "deploy/ci/compress-step.sh": "makes an environment; see tests/deploy/test_step.py",
    "OUTPUT=runs/sparse deploy/ci/compress-step.sh": "makes an environment; see tests/deploy/test_step.py",
    "python3 -m venv .serve": "makes an environment",
    ".serve/bin/pip install": "needs a package index",
    ".serve/bin/python deploy/docker/serve.py": "runs until it is stopped; see tests/deploy/test_serve.py",
    "curl ": "asks the server above",
    "compress run deploy/recipes/glue-sst2.yaml": "takes model and data from the hub",
    "compress search ": "makes several candidates; see tests/compressor/search/test_search.py",
    "compress latency-table models/my-classifier": "as docs/how-to/latency-table.md, which is run",
    "compress run deploy/recipes/search.yaml ": "makes several candidates, as the one above",
    "compress run runs/search/recipe.yaml": "a search writes it; see tests/compressor/search/test_search.py",
    "pip install ./compress-extras": "makes an environment; see tests/test_plugins.py",
    "compress prune runs/quickstart/dense --algorithm tempered": "needs that package",
    "compress attack runs/quickstart/artifact --attack swaps": "needs that package",
    "compress export runs/quickstart/dense --runtime one-by-one": "needs that package",
}


@dataclass(frozen=True)
class Line:
    """One line of a page's shell, its continuation and its here-document with it; or a block of Python.

    Attributes:
        code: that it must exit with, as the page says.
    """

    text: str

    @property
    def code(self) -> int:
        return 1 if FAILS in self.text else 0

    @property
    def is_python(self) -> bool:
        return self.text.startswith(API)

    @property
    def is_ours(self) -> bool:
        return self.text.startswith(PROGRAM)

    @property
    def is_run(self) -> bool:
        return not self.text.startswith(tuple(NOT_RUN))

    def arguments(self, encoder: str = "ENCODER") -> list[str]:
        """What the program is given."""
        text = self.text.split(" > ")[0] if self.is_ours else self.text
        words = shlex.split(text.replace(f'"{ENCODER}"', shlex.quote(encoder)), comments=True)
        return words[words.index("cli") + 1 :] if "cli" in words else words[1:]


def lines_of(page: Path) -> list[Line]:
    """The lines of shell in a page's blocks without a language, and its blocks of Python that use the API."""
    found = []
    for language, block in re.findall(
        r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M
    ):
        if language == "python" and block.startswith(API):
            found.append(Line(block))
        if language:
            continue
        rest = block.replace("\\\n", " ").splitlines()
        while rest:
            line = rest.pop(0)
            here = re.search(r"<<'(\w+)'", line)
            while here and not line.endswith(f"\n{here[1]}"):
                line += "\n" + rest.pop(0)
            if line.strip():
                found.append(Line(re.sub(r" {2,}", " ", line.strip()) if not here else line))
    return found


def inline_commands(page: Path, start: str) -> list[str]:
    """What a page has between backticks and begins so."""
    return [
        span
        for span in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
        if span.startswith(start)
    ]
