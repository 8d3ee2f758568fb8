"""Every attack, offline, on a small real model and on its artifact; odd texts; budgets."""

import re

import pytest

from compressor.attacks.recipes import build_attack
from compressor.attacks.records import summarize, under_word_budgets
from compressor.attacks.resources import import_textattack
from compressor.attacks.runner import attack_victim
from compressor.attacks.victims import Victim
from compressor.data.texts import TextData
from compressor.errors import UserError
from compressor.models.predictors import OnnxPredictor, TorchPredictor
from compressor.options import ATTACKS, AttackConfig, AttackName, with_word_budgets
from compressor.system.console import SilentProgress

EXAMPLES = 8
ODD_TEXTS = {
    "empty": "",
    "blank": " \t",
    "no words": "... !?",
    "one word": "dreadful",
    "ten thousand words": "a dull film " * 3333 + "indeed",
    "one endless word": "x" * 1000,
    "French": "un film merveilleux, très drôle",
    "Chinese": "这部电影很好看",
    "Arabic": "فيلم جميل جدا",
    "emoji": "😀 great 🎬🎬",
    "NUL": "a nul\0byte in a dull film",
    "line separator": "a\u2028dull film",
    "apostrophes": "don't can't it's o'clock's well-made",
}


@pytest.fixture(scope="module")
def config_of(word_vectors, masked_language_model, wordnet):
    def config(name: AttackName, **options) -> AttackConfig:
        return AttackConfig(
            attack=name,
            word_vectors=str(word_vectors),
            masked_language_model=str(masked_language_model),
            wordnet=str(wordnet),
            **options,
        )

    return config


@pytest.fixture(scope="module")
def torch_victim(small_pruned_dir):
    from compressor.models.classifier import load_classifier

    return Victim(TorchPredictor(load_classifier(str(small_pruned_dir))), 48)


def run(victim, data, config, seed=0):
    return attack_victim(victim, data, config, seed, SilentProgress())[0]


def data_of(victim, texts):
    """Texts with the labels that the victim gives them, so that there is something to attack."""
    labels = victim(texts).argmax(dim=1).tolist()
    return TextData(texts, None, labels, ["0", "1"], "here")


@pytest.mark.parametrize("name", ATTACKS)
def test_pytorch_and_the_artifact_are_attacked_alike(
    name, config_of, torch_victim, small_artifact_dir, test_quotes
):
    # CheckList finds most to change where there are numbers, or several contractions.
    changeable = re.compile(r"\b[1-9]\d+\b|n't.*n't" if name == "checklist" else "")
    places = [place for place, text in enumerate(test_quotes.texts) if changeable.search(text)]
    texts = test_quotes.select(places[:EXAMPLES])
    on_torch = run(torch_victim, texts, config_of(name, query_budget=150))
    on_onnx = run(Victim(OnnxPredictor(small_artifact_dir, 1), 48), texts, config_of(name, query_budget=150))
    outcomes = [[(e.outcome, e.perturbed) for e in examples] for examples in (on_torch, on_onnx)]
    assert outcomes[0] == outcomes[1]
    assert any(e.outcome != "skipped" and e.queries > 2 for e in on_torch)
    for example in on_torch:
        right = int(torch_victim([example.perturbed]).argmax()) == example.label
        assert (
            right == (name == "inputreduction" or example.outcome == "failed") or example.outcome == "skipped"
        )


@pytest.mark.parametrize("name", ATTACKS)
def test_odd_texts_have_an_outcome(name, config_of, torch_victim):
    # Fewer words to try: each costs a copy of ten thousand.
    victim = Victim(torch_victim.model, 16)
    data = data_of(victim, list(ODD_TEXTS.values()))
    examples = dict(zip(ODD_TEXTS, run(victim, data, config_of(name, query_budget=5)), strict=True))
    assert {e.outcome for e in examples.values()} <= {"succeeded", "failed"}
    for kind in ("empty", "blank", "no words"):
        assert (examples[kind].outcome, examples[kind].queries) == ("failed", 1)
    assert all(e.queries <= 5 for e in examples.values())


def test_a_text_without_words_that_is_wrong_is_skipped(config_of, torch_victim):
    data = data_of(torch_victim, [""])
    wrong = TextData(data.texts, None, [1 - data.class_labels[0]], data.label_names, "here")
    assert [e.outcome for e in run(torch_victim, wrong, config_of("pruthi"))] == ["skipped"]


def test_words_that_the_model_does_not_see_are_left_alone(config_of, torch_victim):
    texts = ["a dull film " * 40 + "that nobody sees"]
    (example,) = run(torch_victim, data_of(torch_victim, texts), config_of("deepwordbug"))
    assert example.perturbed.split()[48:] == texts[0].split()[48:]


@pytest.mark.parametrize("name", ["deepwordbug", "textfooler"])
def test_no_more_words_change_than_may(name, config_of, torch_victim, test_quotes):
    texts = test_quotes.select(range(EXAMPLES))
    free = run(torch_victim, texts, config_of(name))
    bound = run(torch_victim, texts, config_of(name, max_words_changed=0.1))
    for example in bound:
        words = len(import_textattack().shared.utils.words_from_text(example.text))
        assert example.words_changed * words <= -(-words // 10) + 1e-9
    held = [sum(e.outcome == "failed" for e in examples) for examples in (bound, free)]
    assert held[0] >= held[1]


@pytest.mark.parametrize("name", with_word_budgets())
def test_what_is_read_off_for_a_word_budget_is_what_an_attack_within_it_finds(
    name, config_of, torch_victim, test_quotes
):
    texts = test_quotes.select(range(EXAMPLES // 2 if name == "bertattack" else EXAMPLES))
    whole = run(torch_victim, texts, config_of(name, query_budget=150))
    shares = [0.1, 0.3]
    for share, budget in zip(shares, under_word_budgets(whole, shares), strict=True):
        bound = run(torch_victim, texts, config_of(name, query_budget=150, max_words_changed=share))
        found = summarize(bound, name)
        assert budget.accuracy_under_attack == found.accuracy_under_attack, share
        assert budget.interval == found.accuracy_under_attack_interval


def test_the_query_budget_is_kept(config_of, torch_victim, test_quotes):
    texts = test_quotes.select(range(EXAMPLES))
    examples = run(torch_victim, texts, config_of("deepwordbug", query_budget=5))
    assert all(e.queries <= 5 for e in examples)


def test_queries_count_what_was_asked_for_and_the_cache_spares_the_model_some(
    config_of, torch_victim, test_quotes
):
    texts = test_quotes.select(range(EXAMPLES))
    before = torch_victim.scored
    # It looks at each first swap twice.
    examples = run(torch_victim, texts, config_of("pwws"))
    assert sum(example.scored for example in examples) == torch_victim.scored - before
    assert all(0 < example.scored <= example.queries for example in examples)
    assert sum(example.scored for example in examples) < sum(example.queries for example in examples)


def test_input_reduction_tells_what_is_left(config_of, torch_victim, test_quotes):
    examples = run(torch_victim, test_quotes.select(range(EXAMPLES)), config_of("inputreduction"))
    for example in examples:
        if example.outcome == "skipped":
            continue
        left = len(import_textattack().shared.utils.words_from_text(example.perturbed))
        assert (left <= 1) == (example.outcome == "succeeded")
        assert 0 <= example.words_changed < 1
    assert any(e.words_changed > 0.5 for e in examples)


def test_building_leaves_textattack_as_it_was(config_of, torch_victim):
    textattack = import_textattack()
    from textattack.attack_recipes import bert_attack_li_2020, textbugger_li_2018

    build_attack(config_of("textbugger"), torch_victim, SilentProgress())
    build_attack(config_of("bertattack"), torch_victim, SilentProgress())
    swaps = textattack.transformations
    assert textbugger_li_2018.WordSwapHomoglyphSwap is swaps.WordSwapHomoglyphSwap
    assert bert_attack_li_2020.WordSwapMaskedLM is swaps.WordSwapMaskedLM


def test_a_missing_masked_language_model_is_one_line_with_the_way_out(torch_victim, tmp_path):
    config = AttackConfig(attack="bertattack", masked_language_model=str(tmp_path))
    with pytest.raises(UserError, match="--masked-language-model") as caught:
        build_attack(config, torch_victim, SilentProgress())
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
