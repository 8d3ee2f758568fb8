"""The recipes that come with the project: every one is a whole, valid run."""

import pytest
from project import ROOT

from compressor.config.recipe import load_recipe
from compressor.pipeline.run import check_recipe, trains_dense
from compressor.validation.gates.gates import parse_gates

RECIPES = sorted((ROOT / "deploy" / "recipes").glob("*.yaml"))


def test_none_is_missing():
    names = {path.stem for path in RECIPES}
    assert names == {
        "cpu-latency",
        "glue-sst2",
        "local-files",
        "max-sparsity",
        "nightly",
        "robust",
        "search",
        "tensorrt-2-4",
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_bounds_what_it_may_lose_and_tells_when_to_use_it(path):
    recipe = load_recipe(path)
    check_recipe(recipe)
    bounded = {gate.metric for gate in parse_gates(recipe.validate_.gates)}
    assert {"dense_over_majority", "accuracy_drop"} <= bounded
    assert bounded & {
        "accuracy_under_attack_drop",
        "accuracy_under_attack_drop_upper",
        "mean_accuracy_under_attack_drop",
    }
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert recipe.data.test not in (recipe.data.calibration, recipe.data.train)


def test_the_sparsest_one_bounds_its_sparsity_from_below():
    recipe = load_recipe(next(path for path in RECIPES if path.stem == "max-sparsity"))
    (gate,) = (gate for gate in parse_gates(recipe.validate_.gates) if gate.metric == "sparsity")
    assert (gate.comparison, gate.bound.offset) == (">=", recipe.prune.sparsity)


def test_the_robust_one_makes_its_dense_model_as_a_soup():
    recipe = load_recipe(next(path for path in RECIPES if path.stem == "robust"))
    assert trains_dense(recipe)
    assert recipe.soup is not None
    assert any(recipe.soup.adversarial_step_counts)


def test_the_nightly_one_makes_the_model_of_the_pull_request_so_that_it_is_reused():
    names = ("nightly", "local-files")
    nightly, local = (load_recipe(next(path for path in RECIPES if path.stem == name)) for name in names)
    for section in ("model", "data", "run", "finetune", "soup", "prune", "export"):
        assert getattr(nightly, section) == getattr(local, section), section
