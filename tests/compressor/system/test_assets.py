"""The packages that serve as assets: what an error asks to install is what the project pins."""

import re

from project import ROOT

from compressor.system.assets import REQUIREMENTS


def test_the_error_names_the_pins_of_the_project():
    lines = (ROOT / "requirements-assets.txt").read_text()
    assert REQUIREMENTS.split() == re.findall(r"^(\S+==\S+)", lines, re.M)
