"""The GitHub action, the GitLab template and the pre-commit example: lint, and what they call."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from project import ROOT

DEPLOY = ROOT / "deploy"
STEP = DEPLOY / "ci" / "compress-step.sh"
ACTION = DEPLOY / "github-action" / "action.yml"
WORKFLOW = DEPLOY / "github-action" / "example-workflow.yml"
TEMPLATE = DEPLOY / "gitlab" / "compress.gitlab-ci.yml"
HOOKS = DEPLOY / "pre-commit" / ".pre-commit-config.yaml"

# The linters of this environment, which need not be the active one.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

PINNED = re.compile(r"@([0-9a-f]{40}) # (v\d+)\.\d+\.\d+$", re.MULTILINE)
OPTIONS = set(re.findall(r"^#   ([A-Z_]+)  +", STEP.read_text(), re.MULTILINE))


def lint(command: list[str], text: str | None = None) -> str:
    """What a linter complains about."""
    environment = {**os.environ, "PATH": PATH}
    result = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode in (0, 1), result.stderr
    return result.stdout


def actionlint(text: str) -> str:
    return lint(["actionlint", "-oneline", "-"], text)


def as_workflow(action: str) -> str:
    """An action's steps and inputs as those of a workflow, since actionlint reads nothing else.

    Pinned actions get their major version, by which actionlint knows their inputs.
    """
    parsed = yaml.safe_load(PINNED.sub(r"@\2", action))
    inputs = {name: {"type": "string", **entry} for name, entry in parsed["inputs"].items()}
    job = {"runs-on": "ubuntu-24.04", "steps": parsed["runs"]["steps"]}
    return yaml.safe_dump({"on": {"workflow_call": {"inputs": inputs}}, "jobs": {"job": job}})


def complaints(schema: str, value: object) -> list[str]:
    validator = jsonschema.validators.validator_for(get_builtin_schema(f"vendor.{schema}"))
    return [error.message for error in validator(get_builtin_schema(f"vendor.{schema}")).iter_errors(value)]


def test_the_step_is_clean_by_shellcheck():
    assert lint(["shellcheck", str(STEP)]) == ""


def test_the_workflow_is_clean_by_actionlint():
    assert actionlint(WORKFLOW.read_text()) == ""


def test_the_action_is_clean_by_actionlint_and_keeps_to_githubs_schema():
    assert actionlint(as_workflow(ACTION.read_text())) == ""
    assert complaints("github-actions", yaml.safe_load(ACTION.read_text())) == []


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("inputs.recipe", "inputs.recipee", "recipee"),
        ("python-version:", "python-versoin:", "python-versoin"),
        ('"$GITHUB_ACTION_PATH"/..', "$GITHUB_ACTION_PATH/..", "SC2086"),
        ("steps.pins.outputs", "steps.pin.outputs", '"pin"'),
    ],
)
def test_actionlint_would_find_a_mistake_in_the_action(good, bad, says):
    text = ACTION.read_text()
    assert good in text
    assert says in actionlint(as_workflow(text.replace(good, bad)))


def test_every_action_is_pinned_by_its_full_commit():
    for path in (ACTION, WORKFLOW):
        used = re.findall(r"uses: (\S+.*)$", path.read_text(), re.MULTILINE)
        own = [line for line in used if line.startswith("your-organisation/compress/deploy/github-action@")]
        assert len(own) == (path == WORKFLOW)
        assert len(used) > len(own)
        assert all(PINNED.search(line) for line in used if line not in own), used


def test_no_input_is_written_into_a_script():
    scripts = [step["run"] for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"] if "run" in step]
    assert len(scripts) == 2
    assert not any("${{" in script for script in scripts)


def test_the_action_runs_the_step_with_its_inputs(tmp_path):
    """Each script of the action in its shell, as a runner does it, up to compress, which is a fake."""
    steps = [step for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"] if "run" in step]
    fake = tmp_path / "compress"
    fake.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\" >called\nexit 1\n")
    fake.chmod(0o755)
    given = {"recipe": "a b.yaml", "output": "out", "extra-arguments": "--seed=3", "runtime": "cpu"}
    codes = []
    for step in steps:
        own = {
            name: given.get(re.sub(r"\$\{\{ inputs\.(\S+) \}\}", r"\1", value), "")
            for name, value in step.get("env", {}).items()
        }
        assert set(own) <= OPTIONS
        runner = {
            "PATH": f"{tmp_path}:{PATH}",
            "GITHUB_ACTION_PATH": str(ACTION.parent),
            "GITHUB_OUTPUT": str(tmp_path / "outputs"),
            "SKIP_INSTALL": "1",
        }
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        codes.append(subprocess.run(shell, cwd=tmp_path, env=runner | own, timeout=60).returncode)
    assert codes == [0, 1]
    assert re.fullmatch(r"sha256=[0-9a-f]{64}\n", (tmp_path / "outputs").read_text())
    called = (tmp_path / "called").read_text().split("\0")[:-1]
    assert called == ["run", "a b.yaml", "--output", "out", "--seed=3"]


def interpolate(value, inputs):
    """GitLab's `$[[ inputs.NAME ]]`; a name that is not given is a KeyError."""
    if isinstance(value, dict):
        return {interpolate(key, inputs): interpolate(part, inputs) for key, part in value.items()}
    if isinstance(value, list):
        return [interpolate(part, inputs) for part in value]
    if isinstance(value, str):
        return re.sub(r"\$\[\[ inputs\.([a-z-]+) \]\]", lambda match: inputs[match[1]], value)
    return value


def test_the_gitlab_template_keeps_to_its_schema_and_runs_the_step():
    header, body = yaml.safe_load_all(TEMPLATE.read_text())
    assert complaints("gitlab-ci", header) == []
    inputs = {name: entry.get("default") for name, entry in header["spec"]["inputs"].items()}
    assert [name for name, default in inputs.items() if default is None] == ["image"]
    filled = interpolate(body, inputs | {"image": "registry.example.com/compress:0.1.0-cpu"})
    assert complaints("gitlab-ci", filled) == []
    assert "$[[" not in json.dumps(filled)
    job = filled["compress"]
    assert job["script"] == ["compress-step"]
    assert set(job["variables"]) <= OPTIONS
    assert all(path.startswith(job["variables"]["OUTPUT"] + "/") for path in job["artifacts"]["paths"])
    assert job["artifacts"]["when"] == "always"
    assert complaints("gitlab-ci", filled | {"compress": {**job, "artifact": {}}}) != []


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_hooks_stop_a_commit_if_compress_does(code, tmp_path):
    """pre-commit itself in a repository of its own; the fake keeps each call and fails as it is told."""
    repository, fake = tmp_path / "repository", tmp_path / "bin" / "compress"
    for folder in (repository / "recipes", fake.parent):
        folder.mkdir(parents=True)
    fake.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path / "calls"}"\nexit {code}\n')
    fake.chmod(0o755)
    (repository / "recipes" / "nightly.yaml").write_text("model: m\n")
    (repository / HOOKS.name).write_text(HOOKS.read_text())
    environment = {
        "PATH": f"{fake.parent}:{PATH}",
        "HOME": str(tmp_path),
        "PRE_COMMIT_HOME": str(tmp_path / "cache"),
    }

    def run(*command):
        return subprocess.run(
            command, cwd=repository, env=environment, capture_output=True, text=True, timeout=60
        )

    assert run("git", "init", "--quiet").returncode == 0
    assert run("git", "add", "--all").returncode == 0
    result = run("pre-commit", "run", "--all-files")
    assert result.returncode == (code != 0), result.stdout + result.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["verify models/sentiment", "recipe show recipes/nightly.yaml"]
