"""Whether two checkouts prune alike: the hash of the weights that each makes of the same model and texts.

For a change that moves code and should change no result. The dense model is the quickstart's encoder,
fine-tuned on its texts by the first checkout; each checkout then prunes it by `python -m cli prune` with each
of `SETTINGS`.

    python -m benchmarks.same_weights OLD NEW
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results_file import RESULTS, markdown_table, write_result
from compressor.pipeline.quickstart import write_data
from compressor.system.assets import encoder_directory
from compressor.system.files import sha256_of

THREADS = "2"
MAX_LENGTH = "48"
FINETUNED_TEXTS = 2000
COMMON = ("--max-length", MAX_LENGTH, "--threads", THREADS, "--calibration-examples", "256")
BRIEF = ("--early-steps", "2", "--recovery-steps", "8", "--holdout-examples", "64")
SETTINGS: dict[str, tuple[str, ...]] = {
    "adaptive": ("--sparsity", "0.5"),
    "adaptive, 2:4": ("--pattern", "2:4"),
    "adaptive, structured": ("--pattern", "structured", "--sparsity", "0.5"),
    "adaptive, distilled": ("--sparsity", "0.5", "--distillation-steps", "10"),
    "adaptive, structured, distilled": (
        *("--pattern", "structured", "--sparsity", "0.5", "--distillation-steps", "10"),
    ),
    "randomized, without a teacher": (
        *("--algorithm", "randomized", "--sparsity", "0.5", "--distillation-weight", "0", *BRIEF),
    ),
    "randomized, distilled": (
        *("--algorithm", "randomized", "--sparsity", "0.5", "--hidden-weight", "1", *BRIEF),
    ),
    "randomized, 2:4": ("--algorithm", "randomized", "--pattern", "2:4", *BRIEF),
    "magnitude, structured": ("--algorithm", "magnitude", "--pattern", "structured", "--sparsity", "0.5"),
    "wanda": ("--algorithm", "wanda", "--sparsity", "0.5"),
    "sparsegpt": ("--algorithm", "sparsegpt", "--sparsity", "0.5"),
}


def compress(checkout: Path, *arguments: object) -> None:
    """Run a command with the code of a checkout."""
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)


def rows(old: Path, new: Path, folder: Path, names: Sequence[str]) -> list[dict[str, object]]:
    """One row a setting of those names: what each checkout makes of it."""
    data = folder / "data"
    data.mkdir()
    write_data(data)
    lines = (data / "train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    texts = folder / "texts.tsv"
    texts.write_text("".join(lines[: 1 + FINETUNED_TEXTS]), encoding="utf-8")
    dense = folder / "dense"
    finetune = ("--epochs", "1", "--max-length", MAX_LENGTH, "--threads", THREADS)
    compress(old, "finetune", encoder_directory(), "--data", texts, "--output", dense, *finetune)
    found: list[dict[str, object]] = []
    for number, name in enumerate(names):
        hashes = {}
        for side, checkout in (("old", old), ("new", new)):
            output = folder / f"{number}-{side}"
            compress(
                checkout, "prune", dense, "--calibration", texts, "--output", output, *COMMON, *SETTINGS[name]
            )
            hashes[side] = sha256_of(output / "model.safetensors")
        found.append({"setting": name, **hashes, "equal": hashes["old"] == hashes["new"]})
        print(f"{name}: {hashes['new'][:16]}, {'equal' if found[-1]['equal'] else 'DIFFERS'}", flush=True)
    return found


def commit_of(checkout: Path) -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()


def main(
    old: Annotated[Path, typer.Argument(help="Checkout of the project before the change.")],
    new: Annotated[Path, typer.Argument(help="Checkout after it.")],
    only: Annotated[
        list[str] | None, typer.Option(help="Setting to compare; all if not given.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option(help="Result as JSON.")] = RESULTS / "same_weights.json",
) -> None:
    """Compare the weights that two checkouts make; exit with 1 where they differ."""
    with tempfile.TemporaryDirectory() as folder:
        found = rows(old.resolve(), new.resolve(), Path(folder), only or list(SETTINGS))
    result = {"old": commit_of(old), "new": commit_of(new), "threads": THREADS, "rows": found}
    write_result(output, result)
    header = ("setting", "sha256 of the weights", "equal")
    cells = [(row["setting"], str(row["new"])[:16], row["equal"]) for row in found]
    print(markdown_table(header, cells))
    raise typer.Exit(not all(row["equal"] for row in found))


if __name__ == "__main__":
    typer.run(main)
