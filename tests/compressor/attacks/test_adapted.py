"""Recipes in a form of ours: imperceptible characters, CheckList without names, A2T without gradients."""

import re
from zlib import crc32

import pytest
import torch

from compressor.attacks.attacker import Attacker
from compressor.attacks.recipes import build_attack
from compressor.errors import UserError
from compressor.options import AttackConfig
from compressor.options.keywords import sort_options
from compressor.system.console import SilentProgress

KINDS = ("homoglyphs", "invisible", "deletions", "reorderings")
# Numbers of one change in a solution.
NUMBERS = {"homoglyphs": 1, "invisible": 2, "deletions": 2, "reorderings": 1}
DIRECTIONS = dict.fromkeys(map(ord, "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2069"))


class Rule:
    """Probabilities by a function of the text, the second one of a pair."""

    model = None
    name = "rule"
    device = torch.device("cpu")

    def __init__(self, probabilities, max_length=48):
        self.probabilities, self.max_length, self.scored, self.seen = probabilities, max_length, 0, []

    def __call__(self, texts):
        self.scored += len(texts)
        self.seen += texts
        return torch.tensor(
            [self.probabilities(text if isinstance(text, str) else text[1]) for text in texts]
        )


def has(word):
    return lambda text: [0.1, 0.9] if word in text else [0.8, 0.2]


def attacked(name, victim, text, pair=None, label=1, seed=0, index=0, **options):
    attacker = Attacker(victim, AttackConfig(attack=name, **options), seed, SilentProgress())
    return attacker.attack(index, text, pair, label)


def bad(victim, text, pair=None, seed=0, index=0, label=1, **options):
    own = {
        name: options.pop(name) for name in ("kind", "changes", "population", "generations") & options.keys()
    }
    return attacked("badcharacters", victim, text, pair, label, seed, index, attack_options=own, **options)


def shown(text, kind):
    """What a person reads of a text with changes of a kind, letters in any order for reorderings."""
    if kind == "deletions":
        return re.sub(".\b", "", text)
    if kind == "reorderings":
        return sorted(text.translate(DIRECTIONS))
    return re.sub("[\u200b-\u200d]", "", text)


@pytest.mark.parametrize("kind", KINDS)
def test_one_imperceptible_change_breaks_a_word_that_decides(kind):
    text = "a plainly good film"
    found = bad(Rule(has("good")), text, kind=kind)
    assert found.outcome == "succeeded" and "good" not in found.perturbed
    if kind == "homoglyphs":
        differing = [(old, new) for old, new in zip(text, found.perturbed, strict=True) if old != new]
        assert len(differing) == 1 and not differing[0][1].isascii()
    else:
        assert shown(found.perturbed, kind) == shown(text, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_takes_no_more_queries_than_its_members_in_all_generations(kind):
    # No energy is as another, so that the evolution does not end before its last generation.
    victim = Rule(
        lambda text: [
            0.4 * (crc32(text.encode()) % 1009) / 1009,
            1 - 0.4 * (crc32(text.encode()) % 1009) / 1009,
        ]
    )
    found = bad(
        victim, "a plainly good film, and long enough", kind=kind, changes=2, population=6, generations=3
    )
    assert found.outcome == "failed"
    assert 6 * 2 < found.queries <= 1 + 6 * 2 * NUMBERS[kind] * (3 + 1)
    assert found.perturbed == found.text


@pytest.mark.parametrize("kind", KINDS)
def test_the_search_is_the_same_for_a_seed_and_a_place_and_another_for_others(kind):
    def queries(seed, index):
        victim = Rule(has("good"))
        bad(victim, "a plainly good film that has many other letters", kind=kind, seed=seed, index=index)
        return victim.seen

    assert queries(0, 0) == queries(0, 0)
    assert len({tuple(queries(seed, index)) for seed, index in ((0, 0), (1, 0), (0, 1))}) == 3


@pytest.mark.parametrize("budget", [1, 2, 7])
def test_the_search_ends_at_the_query_budget(budget):
    victim = Rule(lambda text: [0.2, 0.8])
    found = bad(victim, "a plainly good film", query_budget=budget)
    assert (found.outcome, found.queries) == ("failed", budget)


@pytest.mark.parametrize("name", ["checklist", "pruthi", "deepwordbug"])
def test_no_search_begins_where_the_first_query_was_the_last(name):
    found = attacked(name, Rule(has("good")), "a good film of 1999", query_budget=1)
    assert (found.outcome, found.queries) == ("failed", 1)


def test_a_success_counts_more_than_a_lower_probability_of_the_right_class():
    # Of three classes the right one may be least likely and still the first of the three.
    def probabilities(text):
        if text == "aaaa":
            return [0.9, 0.1, 0.0]
        return [0.45, 0.5, 0.05] if text[0] != "a" else [0.4, 0.3, 0.3]

    found = bad(Rule(probabilities), "aaaa", label=0, population=50)
    assert found.outcome == "succeeded" and found.perturbed[0] != "a"


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_second_text_of_a_pair_and_the_words_that_are_seen_change(kind):
    first, second = "good good good", "plainly good film\tand a tail"
    victim = Rule(lambda text: [0.2, 0.8], max_length=3)
    bad(victim, first, second, kind=kind, changes=3, population=5, generations=2)
    assert len(set(victim.seen)) > 5
    for one, other in victim.seen:
        assert one == first and other.endswith("\tand a tail")


@pytest.mark.parametrize("text", ["这部电影很好看", "\u00a0é", "ÄÖ"])
def test_a_text_without_a_character_that_has_a_homoglyph_holds_after_one_query(text):
    found = bad(Rule(lambda text: [0.2, 0.8]), text)
    assert (found.outcome, found.queries, found.perturbed) == ("failed", 1, text)


def test_no_more_words_change_than_may_by_characters():
    victim = Rule(lambda text: [0.2, 0.8])
    text = "plainly good film with many words in it"
    bad(victim, text, changes=8, max_words_changed=0.2, population=10, generations=2)
    changed = [sum(a != b for a, b in zip(text.split(), seen.split(), strict=True)) for seen in victim.seen]
    assert max(changed) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [({"kind": "emoji"}, "kind"), ({"changes": 0}, "changes"), ({"glyphs": 1}, "unknown key")],
)
def test_options_of_bad_characters_that_are_not_allowed_are_refused(options, said):
    with pytest.raises(UserError, match=f"attack_options.*{said}"):
        sort_options([AttackConfig], {"attack": "badcharacters", "attack_options": options})


def test_options_are_recorded_with_their_defaults_and_those_of_others_stay_empty():
    defaults = {"kind": "homoglyphs", "changes": 1, "population": 32, "generations": 10}
    assert AttackConfig(attack="badcharacters").attack_options == defaults
    assert AttackConfig(attack="pwws").attack_options == {}
    with pytest.raises(UserError, match="pwws has no such options"):
        sort_options([AttackConfig], {"attack": "pwws", "attack_options": {"kind": "invisible"}})


def test_checklist_expands_contracts_and_changes_numbers_and_names_stay():
    assert attacked("checklist", Rule(has("isn't")), "it isn't good").perturbed == "it is not good"
    assert attacked("checklist", Rule(has("is not")), "is not good").perturbed == "isn't good"
    found = attacked("checklist", Rule(has("1999")), "Maria saw it in Berlin in 1999")
    assert found.outcome == "succeeded"
    assert re.fullmatch(r"Maria saw it in Berlin in \d+", found.perturbed)
    named = attacked("checklist", Rule(has("Maria")), "Maria saw it in Berlin")
    assert (named.outcome, named.queries) == ("failed", 1)


@pytest.mark.parametrize("number", ["²", "9" * 40, "million million", "point", "٣", "one hundred point"])
def test_a_number_that_cannot_be_read_or_is_too_large_stays_or_changes_but_never_ends_the_run(number):
    assert attacked("checklist", Rule(has("good")), f"a good film, {number} stars").outcome == "failed"


def test_numbers_are_the_same_for_a_seed():
    def queries(seed):
        victim = Rule(has("good"))
        attacked("checklist", victim, "a good film of 1999", seed=seed)
        return victim.seen

    assert queries(0) == queries(0)
    assert queries(0) != queries(1)


def test_what_is_otherwise_than_in_textattack_is_recorded(word_vectors):
    def resources(name):
        config = AttackConfig(attack=name, word_vectors=str(word_vectors))
        return build_attack(config, Rule(has("good")), SilentProgress())[1]

    assert "flair" in resources("checklist")["names_and_locations"]
    assert "37 characters" in resources("badcharacters")["homoglyphs"]
    assert resources("a2t").keys() == {"word_vectors", "sentence_encoder", "part_of_speech", "word_order"}


def test_a2t_changes_no_more_than_four_words_or_a_tenth(word_vectors, test_quotes):
    texts = [text for text in test_quotes.texts if len(text.split()) > 12][:4]
    for text in texts:
        victim = Rule(
            lambda text: [0.2 + (crc32(text.encode()) % 97) / 1000, 0.8 - (crc32(text.encode()) % 97) / 1000]
        )
        attacked("a2t", victim, text, word_vectors=str(word_vectors), query_budget=200)
        words = text.split()
        kept = [seen.split() for seen in victim.seen if len(seen.split()) == len(words)]
        most = max(4, -(-len(words) // 10))
        assert max(sum(a != b for a, b in zip(words, seen, strict=True)) for seen in kept) <= most
