"""Estimates follow the work: twice the work takes twice as long, and no work takes none."""

import pytest

from compressor.config.recipe import Recipe
from compressor.options import (
    AdaptiveConfig,
    AttackConfig,
    DataConfig,
    FinetuneConfig,
    PruneConfig,
    RandomizedConfig,
    SoupConfig,
    ValidateConfig,
)
from compressor.pipeline.estimates import EXPORT_SECONDS, TEXTATTACK_SECONDS, Group, Pace, Sizes, estimate
from compressor.pipeline.runtime_gains import gains_of

PACE = Pace(forward=0.01, training=0.03, operations=1e10, tokens=20.0, groups=[Group(300, 100)] * 4)
SIZES = Sizes(train=1000, calibration=400, test=200)
DATA = DataConfig(train="a", calibration="b", test="c")


def seconds(stage, *, first=False, sizes=SIZES, **sections):
    return estimate(Recipe(model="m", data=DATA, **sections), stage, PACE, sizes, first_attack=first).seconds


def test_fine_tuning_is_counted_in_training_passes():
    assert seconds("dense", finetune=FinetuneConfig(epochs=2)) == pytest.approx(2 * 1000 * 0.03)
    adversarial = FinetuneConfig(epochs=2, adversarial_steps=3)
    assert seconds("dense", finetune=adversarial) == pytest.approx(3 * 2 * 1000 * 0.03)


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({}, 0.0),
        ({"substitution_draws": 4}, 4 * 0.01),
        ({"substitution_choice": "gradient"}, 0.03 / 2),
    ],
)
def test_the_search_for_words_to_replace_is_counted(chosen, text):
    def fine_tuning(share):
        return seconds("dense", finetune=FinetuneConfig(epochs=2, substituted_share=share, **chosen))

    def soup(*shares):
        options = SoupConfig(
            runs=3, epoch_counts=[2], holdout_examples=100, substituted_shares=shares, **chosen
        )
        return seconds("dense", soup=options)

    assert fine_tuning(0.1) - fine_tuning(0.0) == pytest.approx(2 * 1000 * text)
    assert soup(0.0, 0.1) - soup(0.0) == pytest.approx(3 * 2 * 900 * text / 2)


def test_a_soup_takes_all_its_runs():
    few, many = (seconds("dense", soup=SoupConfig(runs=runs)) - TEXTATTACK_SECONDS for runs in (3, 6))
    assert 1.9 < many / few < 2.3


def test_magnitude_takes_none_and_the_walks_take_their_solvers():
    def prune(algorithm, **adaptive):
        return seconds("prune", prune=PruneConfig(algorithm=algorithm, adaptive=AdaptiveConfig(**adaptive)))

    assert prune("magnitude") == 0
    assert 0 < prune("wanda") < prune("sparsegpt") < prune("adaptive") < prune("adaptive", solver="exact")
    assert prune("adaptive", iterations=1) < prune("adaptive")
    passes = prune("adaptive", reconstruction_passes=2) - prune("adaptive")
    assert passes == pytest.approx(2 * 400 * 0.03)
    steps = prune("adaptive", distillation_steps=5) - prune("adaptive")
    assert steps == pytest.approx(5 * 32 * (0.03 + 0.01))
    both = {"distillation_steps": 5, "distillation_substituted_share": 0.1}
    assert prune("adaptive", **both) - prune("adaptive") == pytest.approx(5 * 32 * (2 * 0.03 + 0.015 + 0.01))
    assert prune("adaptive", calibration_tokens=1) == prune("adaptive")
    assert prune("adaptive", calibration_tokens=100_000) > prune("adaptive")


def test_randomized_is_counted_in_its_steps():
    config = RandomizedConfig(steps=2, candidates=3, early_steps=4, recovery_steps=5, batch_size=8)
    found = seconds("prune", prune=PruneConfig(algorithm="randomized", randomized=config))
    assert found == pytest.approx(2 * (3 * 4 + 5) * 8 * 0.03 + 2 * 3 * 256 * 0.01)


def test_an_attack_is_counted_in_queries_of_the_texts_that_there_are():
    def attack(**options):
        return seconds("attack dense", attack=AttackConfig(**options))

    assert attack(attack_examples=100) == pytest.approx(100 * 23 * 0.01)
    assert attack(attack_examples=10**6) == attack(attack_examples=200)
    assert attack(attack="textfooler", query_budget=5) == pytest.approx(200 * 5 * 0.01)
    once = seconds("attack dense", first=True) - seconds("attack dense")
    assert once == pytest.approx(TEXTATTACK_SECONDS)


def test_export_and_validation_have_a_share_that_does_not_depend_on_the_texts():
    assert seconds("export", sizes=Sizes(0, 0, 0)) == EXPORT_SECONDS

    def validate(rounds, limit):
        return seconds("validate", validate=ValidateConfig(latency_rounds=rounds, latency_seconds=limit))

    assert validate(200, 1e4) > 5 * validate(20, 1e4) > 0
    # Four shapes.
    assert validate(200, 1.0) == validate(400, 1.0) == pytest.approx(validate(200, 2.0) - 4)


@pytest.mark.parametrize(
    ("pattern", "device", "says", "not_said"),
    [
        ("unstructured", "cpu", "multiplies with zeros", "TensorRT"),
        ("2:4", "cpu", "TensorRT's sparse kernels", "1.8 to 2.1"),
        ("4:8", "cpu", "2:4 alone", "Ampere"),
        ("structured", "cpu", "1.8 to 2.1", "multiplies with zeros"),
        ("structured", "cuda", "no figures yet", "multiplies with zeros"),
    ],
)
def test_each_pattern_is_told_what_was_measured_of_it(pattern, device, says, not_said):
    gains = gains_of(PruneConfig(pattern=pattern), device)
    text = " ".join(gain.text for gain in gains)
    assert says in text
    assert not_said not in text
    assert all(gain.source for gain in gains)
