"""A stage's key changes with what decides its result, and with nothing else."""

import json

import pytest

from compressor.config.recipe import Recipe
from compressor.errors import UserError
from compressor.models import reuse
from compressor.options import (
    AdaptiveConfig,
    AttackConfig,
    DataConfig,
    ExportConfig,
    FinetuneConfig,
    PruneConfig,
    RunConfig,
    SoupConfig,
    ValidateConfig,
)  # fmt: skip
from compressor.pipeline.keys import stages_of

ALL = {
    "dense", "prune", "export", "attack dense", "attack pruned", "attack artifact", "validate"
}  # fmt: skip
ATTACKS = {name for name in ALL if name.startswith("attack")}


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """Of a folder that looks like an encoder; nothing loads its weights."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (model / "model.safetensors").write_bytes(b"weights")
    for name in ("train", "calibration", "test"):
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{name}\ta\nother\tb\n")
    return Recipe(
        model=str(model),
        data=DataConfig(**{name: str(tmp_path / f"{name}.tsv") for name in ("train", "calibration", "test")}),
        run=RunConfig(device="cpu"),
        finetune=FinetuneConfig(),
    )


def keys(recipe):
    return {stage.name: stage.key for stage in stages_of(recipe, "classification")}


def changed(before, recipe):
    now = keys(recipe)
    assert set(now) == set(before)
    return {name for name in before if now[name] != before[name]}


def test_stages_come_in_the_order_in_which_they_read_each_other(recipe):
    seen = set()
    for stage in stages_of(recipe, "classification"):
        assert set(stage.after) <= seen
        seen.add(stage.name)
    assert seen == ALL
    assert set(keys(recipe.model_copy(update={"finetune": None}))) == ALL - {"dense"}


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        ("finetune", FinetuneConfig(epochs=3), ALL),
        ("prune", PruneConfig(sparsity=0.7), ALL - {"dense", "attack dense"}),
        ("export", ExportConfig(parity_examples=3), {"export", "attack artifact", "validate"}),
        ("attack", AttackConfig(attack_examples=3), {*ATTACKS, "validate"}),
        ("validate_", ValidateConfig(gates=[]), {"validate"}),
        ("run", RunConfig(device="cpu", seed=1), ALL),
        ("run", RunConfig(device="cpu", threads=7), {"validate"}),
    ],
)
def test_an_option_changes_the_stages_that_it_decides(recipe, section, value, expected):
    assert changed(keys(recipe), recipe.model_copy(update={section: value})) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("train.tsv", ALL),
        ("calibration.tsv", ALL - {"dense", "attack dense"}),
        ("test.tsv", {"export", "validate", *ATTACKS}),
        ("model/model.safetensors", ALL),
        ("model/config.json", ALL),
        ("model/training.json", set()),
    ],
)
def test_content_changes_the_stages_that_read_it(recipe, tmp_path, file, expected):
    before = keys(recipe)
    path = tmp_path / file
    path.write_bytes((path.read_bytes() if path.is_file() else b"") + b"\n")
    assert changed(before, recipe) == expected


@pytest.mark.parametrize("role", ["vocabulary", "reference"])
def test_texts_of_the_vocabulary_and_the_reference_decide_the_export(role, recipe, tmp_path):
    before = keys(recipe)
    path = tmp_path / f"{role}.tsv"
    path.write_text("text\nwords\n")
    data = recipe.data.model_copy(update={role: str(path)})
    own = recipe.model_copy(update={"data": data})
    assert changed(before, own) == {"export", "attack artifact", "validate"}
    before = keys(own)
    path.write_text("text\nother words\n")
    assert changed(before, own) == {"export", "attack artifact", "validate"}


def test_names_of_places_change_nothing(recipe, tmp_path):
    before = keys(recipe)
    (tmp_path / "test.tsv").rename(tmp_path / "renamed.tsv")
    (tmp_path / "model").rename(tmp_path / "moved")
    data = recipe.data.model_copy(update={"test": str(tmp_path / "renamed.tsv")})
    moved = recipe.model_copy(update={"data": data, "model": str(tmp_path / "moved")})
    assert keys(moved) == before


def test_a_soup_s_own_attack_and_its_resources_decide_it(recipe, tmp_path):
    vectors = tmp_path / "vectors.npz"
    vectors.write_bytes(b"1")
    soup = SoupConfig(attack=AttackConfig(word_vectors=str(vectors)))
    recipe = recipe.model_copy(update={"finetune": None, "soup": soup})
    before = keys(recipe)
    vectors.write_bytes(b"2")
    assert changed(before, recipe) == ALL


@pytest.mark.parametrize("section", [FinetuneConfig, SoupConfig])
def test_vectors_that_replace_words_decide_the_dense_model(recipe, tmp_path, section):
    vectors = tmp_path / "vectors.npz"
    vectors.write_bytes(b"1")
    trained = section(substitution_vectors=str(vectors))
    changes = {"finetune": trained} if section is FinetuneConfig else {"finetune": None, "soup": trained}
    recipe = recipe.model_copy(update=changes)
    before = keys(recipe)
    vectors.write_bytes(b"2")
    assert changed(before, recipe) == ALL


def test_vectors_that_replace_words_decide_the_pruned_model(recipe, tmp_path):
    vectors = tmp_path / "vectors.npz"
    vectors.write_bytes(b"1")
    adaptive = AdaptiveConfig(substitution_vectors=str(vectors))
    recipe = recipe.model_copy(update={"prune": PruneConfig(adaptive=adaptive)})
    before = keys(recipe)
    vectors.write_bytes(b"2")
    assert changed(before, recipe) == ALL - {"dense", "attack dense"}


def test_the_code_of_a_stage_and_the_packages_that_compute_it_decide_it(recipe, monkeypatch):
    before = keys(recipe)
    own = reuse.code_version
    with monkeypatch.context() as patch:
        patch.setattr(reuse, "code_version", lambda module, **given: "other")
        assert changed(before, recipe) == ALL
        patch.setattr(
            reuse,
            "code_version",
            lambda module, **given: own(module, **given) + "x" * module.count("pruning"),
        )
        assert changed(before, recipe) == ALL - {"dense", "attack dense"}
    versions = reuse.package_versions
    for package, expected in (
        ("torch", ALL),
        ("textattack", {*ATTACKS, "validate"}),
        ("onnx", {"export", "attack artifact", "validate"}),
        ("datasets", set()),
    ):
        monkeypatch.setattr(
            reuse,
            "package_versions",
            lambda names, package=package: {
                **versions(names),
                **({package: "1"} if package in names else {}),
            },
        )
        assert changed(before, recipe) == expected


def test_the_names_of_resources_change_nothing(recipe, tmp_path):
    vectors = tmp_path / "vectors.npz"
    vectors.write_bytes(b"1")

    def with_vectors(path):
        soup = SoupConfig(substitution_vectors=str(path), attack=AttackConfig(word_vectors=str(path)))
        attack = AttackConfig(word_vectors=str(path))
        return recipe.model_copy(update={"finetune": None, "soup": soup, "attack": attack})

    before = keys(with_vectors(vectors))
    vectors.rename(tmp_path / "moved.npz")
    assert changed(before, with_vectors(tmp_path / "moved.npz")) == set()


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"model": "nowhere/at/all"}, "no such model directory"),
        ({"data": DataConfig(calibration="none.tsv", test="none.tsv")}, "no such file"),
        ({"data": DataConfig(calibration="a" * 5000, test="b")}, "cannot be read"),
    ],
)
def test_what_is_missing_is_told(recipe, section, says):
    with pytest.raises(UserError, match=says):
        stages_of(recipe.model_copy(update={"finetune": None, **section}), "classification")
