"""The Dockerfiles, as far as they can be judged without building them: lint, pins, user, what is copied."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from project import ROOT

DOCKER = ROOT / "deploy" / "docker"
FILES = sorted(DOCKER.glob("Dockerfile.*"))
HADOLINT = Path(sys.executable).parent / "hadolint"
REQUIREMENTS = {name: DOCKER / f"serve-requirements{name}.txt" for name in ("-common", "", "-openvino")}
RUNTIME = {"-common": "tokenizers", "": "onnxruntime", "-openvino": "openvino"}


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, continued lines joined."""

    name: str
    text: str


def instructions(path: Path) -> list[Instruction]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(path: Path) -> list[list[Instruction]]:
    """The instructions of each stage; the first of each is its FROM."""
    result: list[list[Instruction]] = []
    for instruction in instructions(path):
        if instruction.name == "FROM":
            result.append([])
        result[-1].append(instruction)
    return result


def hadolint(text: str) -> str:
    result = subprocess.run(
        [HADOLINT, "--no-color", "--failure-threshold", "style", "-"],
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode in (0, 1), result.stderr
    return result.stdout


def test_there_is_an_image_for_each_purpose():
    assert [path.suffix for path in FILES] == [".cpu", ".gpu", ".serve"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_clean_by_hadolint(path):
    assert hadolint(path.read_text()) == ""
    # hadolint looks into the scripts as well.
    assert "DL3008" in hadolint(path.read_text() + "RUN apt-get install --yes gcc\n")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_bases_are_pinned_and_the_user_is_not_root(path):
    own = set()
    for stage in stages(path):
        base, *alias = stage[0].text.split(" AS ")
        assert base in own or re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z0-9.-]+", base), base
        own |= set(alias)
    final = stages(path)[-1]
    names = [instruction.name for instruction in final]
    users = [instruction.text for instruction in final if instruction.name == "USER"]
    assert users == ["10001:10001"]
    assert "RUN" not in names[names.index("USER") :]
    assert "HEALTHCHECK" in names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pip_keeps_no_cache_and_installs_what_is_pinned(path):
    build = next(stage for stage in stages(path) if any("pip install" in i.text for i in stage))
    assert any(i.name == "ENV" and "PIP_NO_CACHE_DIR=1" in i.text for i in build)
    commands = [c for i in build if i.name == "RUN" for c in i.text.split("&&") if "pip install" in c]
    assert commands
    for command in commands:
        assert "--require-hashes" in command or "--constraint constraints.txt" in command, command


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_not_left_out_of_the_context(path):
    ignored, *kept = (
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")
    )
    assert ignored == "*"
    sources = []
    for instruction in instructions(path):
        assert instruction.name != "ADD"
        if instruction.name == "COPY" and "--from=" not in instruction.text:
            words = [word for word in instruction.text.split() if not word.startswith("--")]
            sources += words[:-1]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in kept, source


def test_the_images_of_the_step_hold_what_the_project_needs_to_be_installed():
    project = (ROOT / "pyproject.toml").read_text()
    for name in ("README.md", "LICENSE"):
        assert f'"{name}"' in project
    for path in FILES[:2]:
        copied = " ".join(i.text for i in instructions(path) if i.name == "COPY")
        for name in ("pyproject.toml", "README.md", "LICENSE", "cli.py", "compressor", "exporters"):
            assert f" {name} " in f" {copied} ", name
        assert copied.endswith("deploy/ci/compress-step.sh /usr/local/bin/compress-step")


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_server_runs_with_the_versions_that_the_tests_ran_with(name):
    pins = set((ROOT / "constraints.txt").read_text().splitlines())
    lines = REQUIREMENTS[name].read_text().replace("\\\n", " ").splitlines()
    entries = [line.split() for line in lines if not line.startswith(("#", "--requirement "))]
    names = {entry[0].split("==")[0] for entry in entries}
    assert RUNTIME[name] in names
    assert len(names & {"onnxruntime", "openvino"}) == (name != "-common")
    included = [line for line in lines if line.startswith("--requirement ")]
    assert included == ["--requirement serve-requirements-common.txt"] * (name != "-common")
    for pin, *hashes in entries:
        assert pin in pins, pin
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in hashes)
