"""The page in a real browser, at the width of a screen and of a phone."""

import re
import shutil
import subprocess
from html import escape

import matplotlib.image
import numpy as np
import pytest
from made_reports import SHAPES, judged, make_report, variant

from compressor.validation.report.render import render_html
from compressor.validation.schema import Appendix, AttackRow, LayerRow, Variants

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (1200, 390)
HEIGHT = 2400
FAIL = (0xB3, 0x20, 0x2C)


def page():
    """A report in which something of everything is wrong, with long names."""
    dense = variant("models/" + "a-long-name-" * 8, 0.92, examples=500)
    slow = [entry.model_copy(update={"stable": False, "rounds": 100}) for entry in dense.latency]
    artifact = variant("artifact", 0.8, examples=500, dense=dense, latency=slow)
    gates = [
        judged("accuracy_under_attack_drop", "<= 0.01", 0.2, "fail", interval=artifact.accuracy_interval),
        judged("accuracy", ">= 0.8", 0.8, "inconclusive", place="8 x 128", note="the times did not settle"),
    ]
    report = make_report(variants=Variants(dense=dense, pruned=dense, artifact=artifact), gates=gates)
    layers = [LayerRow(f"bert.encoder.layer.{i}.attention.self.query", 0.5, 0.01) for i in range(12)]
    attack = AttackRow("artifact", "fresh", "a fine film " * 20, "a fnie film " * 20, 21)
    return render_html(report, Appendix(layers, [attack], {"Test data": "x" * 200}))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome on the PATH")
def test_the_page_fits_a_screen_and_a_phone(tmp_path):
    # Frames, since the browser's own window has a smallest width. They share the wrapper's origin.
    frames = "".join(
        f'<iframe style="width:{width}px;height:{HEIGHT}px;border:0" srcdoc="{escape(page())}"></iframe>'
        for width in WIDTHS
    )
    script = (
        "onload = () => document.title = [...document.querySelectorAll('iframe')].map(f => {"
        "const root = f.contentDocument.documentElement;"
        "return root.scrollWidth + ' ' + root.querySelectorAll('tr').length}).join()"
    )
    wrapper, picture = tmp_path / "wrapper.html", tmp_path / "picture.png"
    wrapper.write_text(
        f'<title></title><script>{script}</script><body style="margin:0;display:flex">{frames}',
        encoding="utf-8",
    )
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom",
        f"--screenshot={picture}", f"--window-size={sum(WIDTHS)},{HEIGHT}",
        f"--user-data-dir={tmp_path / 'profile'}", wrapper.as_uri(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>([^<]*)</title>", result.stdout)
    assert found, result.stderr
    measured = [tuple(map(int, entry.split())) for entry in found.group(1).split(",")]
    for width, (needed, rows) in zip(WIDTHS, measured, strict=True):
        assert needed == width
        assert rows > 3 * len(SHAPES)
    pixels = (matplotlib.image.imread(picture)[..., :3] * 255).round().astype(int)
    assert pixels.shape[:2] == (HEIGHT, sum(WIDTHS))
    for part in np.split(pixels, [WIDTHS[0]], axis=1):
        # The verdict's bar and the badges, drawn in each frame.
        assert (part == FAIL).all(axis=-1).sum() > 1000
