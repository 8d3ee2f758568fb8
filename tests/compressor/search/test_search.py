"""A search from gates to a proven artifact: whole, resumed, with gates that nothing holds."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from small_searches import LOOSE, QUICK, TIMING, context_of, job_of

from cli import execute
from compressor.config.recipe import Recipe, load_recipe
from compressor.errors import GateFailed, UserError
from compressor.models.manifest import verify_directory
from compressor.pipeline.run import run_recipe
from compressor.search import candidates as module
from compressor.search.candidates import CandidateStore, candidates_folder, is_cost
from compressor.search.record import CandidateFigures, front_of, search_schema
from compressor.search.stage import search_directory
from compressor.system.console import SilentProgress
from compressor.validation import stage as validation_stage
from compressor.validation.gates.gates import parse_gates


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder whose searches share what they make for candidates."""
    return tmp_path_factory.mktemp("searches")


@pytest.fixture
def search(small_classifier_dir, texts, table_file, root):
    """A function that searches with gates, in place of the search before it."""

    def searched(gates, folder=root, take=None, **options):
        config = QUICK.model_copy(update={"latency_tables": [str(table_file)], **options})
        job = job_of(small_classifier_dir, texts, config, gates=gates)
        return search_directory(job, context_of(folder), take)

    return searched


def test_gates_that_all_hold_give_the_fastest_candidate_proven(search, root):
    record = search(LOOSE)
    assert record.verdict == "pass"
    assert [one.target is None for one in record.candidates] == [True, False, False]
    chosen = record.candidates[record.chosen]
    assert chosen.speedup == max(one.speedup for one in record.candidates if one.holds)
    # Each holds, so the next one is faster.
    assert record.candidates[2].target > record.candidates[1].target
    assert not verify_directory(root / "search/artifact").problems
    report = json.loads((root / "search/report/report.json").read_text())
    assert report["verdict"] == "pass"
    assert report["environment"]["data"]["source"].endswith("test.tsv")
    found = json.loads((root / "search/search.json").read_text())
    assert found["chosen"] == record.chosen
    jsonschema.validate(found, search_schema())
    assert record.test_figures.artifact.accuracy == report["variants"]["artifact"]["accuracy"]
    assert record.test_figures.speedup > 0
    assert record.dense_figures.size_bytes == report["variants"]["dense"]["size_bytes"]
    assert record.texts["test"].endswith("test.tsv")
    assert "## Search: PASS" in (root / "search/search.md").read_text()
    assert "<h1>PASS" in (root / "search/search.html").read_text()
    recipe = load_recipe(root / "search/recipe.yaml")
    assert recipe.prune.adaptive.speedup == chosen.target
    assert (root / "search/latency-table.json").read_bytes()


def test_the_table_is_measured_on_the_threads_that_candidates_are_timed_on(
    small_classifier_dir, texts, tmp_path, monkeypatch
):
    measured = []
    monkeypatch.setattr(module, "latency_table", lambda model, config, run, *_, **__: measured.append(run))
    job = job_of(small_classifier_dir, texts, latency_threads=3)
    CandidateStore(job, context_of(tmp_path, threads=2)).measured_table()
    assert [run.threads for run in measured] == [3]


def test_a_search_again_makes_nothing_anew(search, monkeypatch):
    first = search(LOOSE)
    monkeypatch.setattr(module, "prune_directory", None)
    monkeypatch.setattr(module, "export_directory", None)
    monkeypatch.setattr(module, "validate_directories", None)
    again = search(LOOSE)
    assert again == first


def test_a_search_that_is_stopped_goes_on_after_its_last_candidate(search, tmp_path, monkeypatch):
    whole = module.prune_directory

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "prune_directory", stopped)
    with pytest.raises(KeyboardInterrupt):
        search(LOOSE, tmp_path, candidates=1)
    assert not (tmp_path / "search").exists()
    kept = {path: path.stat().st_mtime_ns for path in candidates_folder(tmp_path / "search").iterdir()}
    assert kept
    monkeypatch.setattr(module, "prune_directory", whole)
    assert len(search(LOOSE, tmp_path, candidates=1).candidates) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_gates_on_cost_that_nothing_meets_say_so(search, root):
    record = search(["accuracy_drop <= 0.9", "size_ratio <= 0.001"])
    assert (record.verdict, record.chosen) == ("fail", None)
    assert "size_ratio" in record.reason
    assert "short in speed or size" in record.reason
    fastest = max(record.candidates, key=lambda one: one.speedup)
    assert (record.nearest, record.test_figures) == (fastest.number, None)
    assert "Nothing was chosen" in (root / "search/search.md").read_text()
    assert not (root / "search/artifact").exists()


def test_quality_that_the_dense_model_does_not_hold_ends_the_search_at_once(search):
    record = search(["accuracy >= 0.999"])
    assert [one.number for one in record.candidates] == [0]
    assert record.verdict == "fail"
    assert "nearest is candidate 0 (dense, exported), short in quality: accuracy is" in record.reason


def test_attacks_are_made_only_where_the_other_gates_hold_and_on_the_dense_model_once(search, monkeypatch):
    record = search([*LOOSE, "size_ratio <= 0.001", "accuracy_under_attack_drop <= 1"])
    assert not any(one.attacked for one in record.candidates)
    attack, attacked = validation_stage.attack_directory, []

    def counted(model, data, config, context, against):
        attacked.append((Path(data).stem, context.output.name))
        return attack(model, data, config, context, against)

    monkeypatch.setattr(validation_stage, "attack_directory", counted)
    record = search([*LOOSE, "accuracy_under_attack_drop <= 1"], candidates=1)
    assert all(one.attacked for one in record.candidates)
    assert record.dense_figures.accuracy_under_attack is not None
    assert record.verdict == "pass"
    assert sorted(attacked) == [
        ("selection", "artifact"), ("selection", "artifact"), ("selection", "dense"),
        ("test", "artifact"), ("test", "dense"),
    ]  # fmt: skip


def test_an_attack_that_only_warns_is_made_on_the_chosen_artifact_alone(search):
    record = search([*LOOSE, "warn: accuracy_under_attack_drop <= 1"], candidates=1)
    assert not any(one.attacked for one in record.candidates)
    assert record.test_figures.artifact.accuracy_under_attack is not None
    assert any(result.metric == "accuracy_under_attack_drop" for result in record.test_gates)


def test_a_candidate_that_holds_the_gates_by_chance_is_not_chosen(search):
    drop = search(LOOSE).candidates[0].gates[0]
    bound = str(parse_gates([f"accuracy_drop <= {drop.value + 1e-6}"])[0])
    sure, unsure = (search([bound], candidates=1, confidence=share).candidates[0] for share in (0.5, 0.99))
    assert (sure.holds, sure.unsure) == (True, [])
    assert (unsure.holds, unsure.quality_holds, unsure.unsure) == (False, False, [bound])
    assert unsure.problems == "accuracy_drop (unsure)"


def test_any_candidate_can_be_taken(search, root):
    record = search(LOOSE, take=0)
    assert record.chosen == 0
    assert load_recipe(root / "search/recipe.yaml").prune.algorithm == "magnitude"
    with pytest.raises(UserError, match=r"take 9: there are candidates 0 to 2"):
        search(LOOSE, take=9)


def test_no_candidate_begins_that_would_not_end_in_time(search):
    record = search(LOOSE, budget_minutes=1e-3)
    assert len(record.candidates) == 1
    assert "the time is up" in record.reason


def test_test_texts_are_not_selection_texts(search, texts):
    selection = (texts / "selection.tsv").read_bytes()
    (texts / "selection.tsv").write_bytes((texts / "test.tsv").read_bytes())
    try:
        with pytest.raises(UserError, match="selection"):
            search(LOOSE)
    finally:
        (texts / "selection.tsv").write_bytes(selection)


# in a recipe ------------------------------------------------------------------------------------


@pytest.fixture
def recipe(small_classifier_dir, texts, table_file):
    """The values of a recipe that searches."""
    return {
        "model": str(small_classifier_dir),
        "data": {
            "calibration": str(texts / "calibration.tsv"),
            "selection": str(texts / "selection.tsv"),
            "test": str(texts / "test.tsv"),
            "max_length": 64,
        },
        "run": {"device": "cpu", "threads": 1},
        "search": QUICK.model_dump() | {"candidates": 1, "latency_tables": [str(table_file)]},
        "attack": {"attack": "deepwordbug", "attack_examples": 4},
        "validate": {"gates": LOOSE, **TIMING},
    }


def run_it(recipe, output):
    return run_recipe(Recipe.model_validate(recipe), output, force=False, progress=SilentProgress())


def test_a_recipe_can_search(recipe, tmp_path, monkeypatch):
    report = run_it(recipe, tmp_path / "run")
    assert report.verdict == "pass"
    found = json.loads((tmp_path / "run/search/search.json").read_text())
    assert report.variants.artifact.size_bytes == found["candidates"][found["chosen"]]["size_bytes"]
    assert (tmp_path / "run/report.html").read_bytes() == (
        tmp_path / "run/search/report/report.html"
    ).read_bytes()
    # Where the artifact of other recipes is.
    assert not verify_directory(tmp_path / "run/artifact").problems
    monkeypatch.setattr("compressor.pipeline.stage_runs.search_directory", None)
    assert run_it(recipe, tmp_path / "run") == report
    # In how many processes it searched decides nothing.
    recipe["search"]["processes"] = 2
    assert run_it(recipe, tmp_path / "run") == report


def test_a_recipe_whose_search_finds_nothing_fails_by_its_gates(recipe, tmp_path):
    recipe["validate"]["gates"] = ["accuracy >= 0.999"]
    with pytest.raises(GateFailed, match="nearest is candidate 0"):
        run_it(recipe, tmp_path / "run")
    assert not (tmp_path / "run/artifact").exists()


def test_an_artifact_of_a_search_before_goes_if_nothing_holds_the_gates(recipe, tmp_path):
    recipe["search"]["confidence"] = 0.5
    run_it(recipe, tmp_path / "run")
    assert (tmp_path / "run/artifact/manifest.json").is_file()
    recipe["validate"]["gates"] = ["accuracy >= 0.999"]
    with pytest.raises(GateFailed):
        run_it(recipe, tmp_path / "run")
    assert not (tmp_path / "run/artifact").exists()


def test_a_run_that_searched_prints_its_candidates_and_the_outcome(recipe, tmp_path, capfd):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["run", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "run")]
    assert execute(arguments) == 0
    printed = capfd.readouterr().out
    assert "Candidates, on the selection texts" in printed
    assert "Chosen artifact, on the test texts" in printed
    assert execute([*arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["verdict"] == "pass"


@pytest.mark.parametrize(
    ("section", "values", "problem"),
    [
        ("prune", {"sparsity": 0.3}, "the search decides how the model is pruned and exported"),
        ("export", {"precision": "int8"}, "the search decides how the model is pruned and exported"),
        ("data", {"selection": None}, "data.selection: missing"),
    ],
)
def test_a_recipe_cannot_decide_what_its_search_is_to_find(recipe, section, values, problem, tmp_path):
    recipe[section] = recipe.get(section, {}) | values
    with pytest.raises(UserError, match=problem):
        run_it(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# the front --------------------------------------------------------------------------------------


def candidate(number, score, speedup, size=10):
    return CandidateFigures.model_construct(number=number, task_score=score, speedup=speedup, size_bytes=size)


def test_the_front_has_what_nothing_beats():
    found = [
        candidate(0, 0.9, 3.0),
        candidate(1, 0.88, 9.0),
        candidate(2, 0.87, 6.0),
        candidate(3, 0.8, 12.0),
    ]
    assert front_of(found, "latency") == [0, 1, 3]


def test_equal_candidates_are_both_on_the_front():
    assert front_of([candidate(0, 0.9, 3.0), candidate(1, 0.9, 3.0)], "latency") == [0, 1]


def test_the_front_by_size_looks_at_sizes():
    found = [candidate(0, 0.9, 9.0, size=20), candidate(1, 0.8, 3.0, size=5)]
    assert front_of(found, "size") == [0, 1]
    assert front_of(found, "latency") == [0]


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("size_ratio <= 0.5", True),
        ("latency_p50 <= 3", True),
        ("accuracy_drop <= 0.01", False),
        ("batch_disagreement <= 0", False),
        ("accuracy_under_attack_drop <= 0.1", False),
    ],
)
def test_cost_is_told_from_quality(gate, expected):
    assert is_cost(parse_gates([gate])[0]) is expected
