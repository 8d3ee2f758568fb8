"""A page in a real browser, at the width of a screen and of a phone."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (1200, 390)
HEIGHT = 2400

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome on the PATH")


@dataclass(frozen=True)
class View:
    """What the browser made of a page at a width.

    Attributes:
        needed: width without scrolling sideways.
        rows: of tables.
        pixels: `(height, width, 3)`, whole numbers to 255.
    """

    width: int
    needed: int
    rows: int
    pixels: np.ndarray


def views(page: str, folder: Path) -> list[View]:
    """Show a page at both widths, in frames, since the browser's own window has a smallest width."""
    # They share the wrapper's origin.
    frames = "".join(
        f'<iframe style="width:{width}px;height:{HEIGHT}px;border:0" srcdoc="{escape(page)}"></iframe>'
        for width in WIDTHS
    )
    script = (
        "onload = () => document.title = [...document.querySelectorAll('iframe')].map(f => {"
        "const root = f.contentDocument.documentElement;"
        "return root.scrollWidth + ' ' + root.querySelectorAll('tr').length}).join()"
    )
    wrapper, picture = folder / "wrapper.html", folder / "picture.png"
    wrapper.write_text(
        f'<title></title><script>{script}</script><body style="margin:0;display:flex">{frames}',
        encoding="utf-8",
    )
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom",
        f"--screenshot={picture}", f"--window-size={sum(WIDTHS)},{HEIGHT}",
        f"--user-data-dir={folder / 'profile'}", wrapper.as_uri(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>([^<]*)</title>", result.stdout)
    assert found, result.stderr
    pixels = (matplotlib.image.imread(picture)[..., :3] * 255).round().astype(int)
    assert pixels.shape[:2] == (HEIGHT, sum(WIDTHS))
    return [
        View(width, *map(int, entry.split()), part)
        for width, entry, part in zip(
            WIDTHS, found.group(1).split(","), np.split(pixels, [WIDTHS[0]], axis=1), strict=True
        )
    ]
