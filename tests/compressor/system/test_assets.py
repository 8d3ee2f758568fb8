"""The packages that serve as assets: what an error asks to install is what the project pins."""

import importlib.metadata
import re
import subprocess
import sys

import pytest
from project import ROOT

from compressor.errors import UserError
from compressor.system.assets import REQUIREMENTS, asset_file, find_distribution, install_command
from compressor.system.environment import installed_version


def test_the_error_names_the_pins_of_the_project():
    lines = (ROOT / "requirements-assets.txt").read_text()
    assert REQUIREMENTS.split() == re.findall(r"^(\S+==\S+)", lines, re.M)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "a cache"))
    return tmp_path / "a cache"


def test_a_package_in_the_cache_is_found_as_one_of_the_environment(cache, tmp_path):
    with pytest.raises(UserError, match="package some-texts is not installed") as caught:
        asset_file("some-texts", "some_texts/all.csv")
    command = install_command()
    assert command in str(caught.value)
    project = tmp_path / "project"
    (project / "some_texts").mkdir(parents=True)
    (project / "some_texts" / "all.csv").write_text("text")
    (project / "pyproject.toml").write_text(
        '[project]\nname = "some-texts"\nversion = "1.2"\ndependencies = ["not-to-be-had"]\n'
        '[tool.setuptools]\npackages = ["some_texts"]\npackage-data = {some_texts = ["*.csv"]}\n'
    )
    # As the message says it, but for what is installed.
    own = f"{sys.executable} -m {command.removesuffix(REQUIREMENTS)} --no-build-isolation --quiet {project}"
    subprocess.run(["sh", "-c", own], check=True, timeout=120)
    found = asset_file("some-texts", "some_texts/all.csv")
    assert found.read_text() == "text"
    assert found.is_relative_to(cache / "assets")
    assert installed_version("some-texts") == "1.2"
    with pytest.raises(UserError, match=r"missing from package some-texts; reinstall it: pip install"):
        asset_file("some-texts", "some_texts/none.csv")


def test_the_environment_comes_first_and_nothing_is_made(cache):
    assert find_distribution("torch").version == importlib.metadata.version("torch")
    assert find_distribution("not-there-at-all") is None
    assert not cache.exists()
