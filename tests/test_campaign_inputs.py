"""A hundred damaged and rewritten inputs through the command line, and the checks that judge them.

The whole campaign, thousands of mutants, is `python -m benchmarks.campaign_inputs`.
"""

import itertools
import sys

import pytest
import torch

import cli
from benchmarks.campaign_inputs import Tally, kind_of, run_mutant
from benchmarks.mutants import AREAS, OUTPUT, WITHOUT_ARTIFACT, Mutant, make_mutant, make_valid

SEED = 1
MUTANTS_OF_AN_AREA = 11
# A tenth or two of a second each.
FAST = ("compare", "finetune", "inspect", "pack", "perturb", "prune", "unpack", "verify", "recipe")


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    threads = torch.get_num_threads()
    yield make_valid(tmp_path_factory.mktemp("valid"), all_kinds=False)
    torch.set_num_threads(threads)


def numbers_of(valid, area):
    """Numbers of an area's mutants whose commands are fast."""
    found = (
        number
        for number in itertools.count()
        if make_mutant(valid, SEED, number, [area]).arguments[0] in FAST
    )
    return itertools.islice(found, MUTANTS_OF_AN_AREA)


@pytest.mark.parametrize("area", WITHOUT_ARTIFACT)
def test_damaged_and_rewritten_inputs_are_answered_rightly_or_refused_in_a_line(valid, tmp_path, area):
    tally = Tally()
    for number in numbers_of(valid, area):
        mutant = make_mutant(valid, SEED, number, [area])
        tally.add(run_mutant(valid, mutant, number, tmp_path / str(number)))
    failures = [
        "\n".join([f"{o.number}: {o.name}: compress {o.command}", *o.faults, o.output])
        for group in tally.groups.values()
        for o in group
    ]
    assert not failures, "\n".join(failures)
    assert tally.mutants == MUTANTS_OF_AN_AREA


def test_a_mutant_is_made_from_its_number_alone(valid):
    for number in range(200):
        mutants = [make_mutant(valid, SEED, number, WITHOUT_ARTIFACT) for _ in range(2)]
        assert mutants[0] == mutants[1]
    assert set(WITHOUT_ARTIFACT) < set(AREAS)


def refuse(line, code=2):
    print(line, file=sys.stderr)
    return code


def write(folder, name, text=""):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def raise_error():
    raise KeyError("architectures")


TRACEBACK = "Traceback (most recent call last):\nKeyError: 1"
RIGHT = "error: data.tsv: row 3: column 'label' is empty; fill it or drop the row"


@pytest.mark.parametrize(
    ("work", "expected", "fault"),
    [
        (lambda place: refuse(RIGHT), "any", None),
        (lambda place: refuse(RIGHT), "refused", None),
        (lambda place: refuse(RIGHT), "same", "is refused"),
        (lambda place: raise_error(), "any", "an exception escapes"),
        (lambda place: refuse(TRACEBACK, 70), "any", "prints a traceback, exit 70"),
        (lambda place: refuse(RIGHT, 1), "any", "ends with 1"),
        (lambda place: refuse(""), "any", "0 lines of error"),
        (lambda place: refuse("error: something is wrong"), "any", "names neither file nor key"),
        (lambda place: refuse(f"{RIGHT}\n{RIGHT}"), "any", "2 lines of error"),
        (lambda place: refuse(f"{RIGHT}{'x' * 5000}"), "any", "characters"),
        (lambda place: write(place, f"{OUTPUT}/config.json") or refuse(RIGHT), "any", "half-written"),
        (lambda place: write(place, ".out.x.partial/config.json") or refuse(RIGHT), "any", "leaves beside"),
        (lambda place: write(place, "data.tsv", "changed") or refuse(RIGHT), "any", "changes an input"),
        (lambda place: write(place, "../bystander/manifest.json") or refuse(RIGHT), "any", "changes"),
        (lambda place: write(place, "../tmp/left") or refuse(RIGHT), "any", "leaves beside"),
        (lambda place: 0, "any", "no output after exit 0"),
        (lambda place: write(place, f"{OUTPUT}/training.json", "{") or 0, "any", "training.json is no JSON"),
        (lambda place: write(place, f"{OUTPUT}/training.json", "{}") or 0, "refused", "must be refused"),
        (lambda place: write(place, f"{OUTPUT}/training.json", "{}") or 0, "same", "wrong result"),
    ],
)  # fmt: skip
def test_what_must_hold_is_checked(valid, tmp_path, monkeypatch, work, expected, fault):
    files = {"data.tsv": b"text\tlabel\n"}
    arguments = ("finetune", "model", "--data", "data.tsv", "--output", OUTPUT)
    mutant = Mutant("data", "a header alone", (), files, ("data.tsv",), arguments, expected, "data finetune")
    monkeypatch.setattr(cli, "execute", lambda arguments: work(tmp_path / "0" / "in"))
    outcome = run_mutant(valid, mutant, 0, tmp_path / "0")
    assert bool(outcome.faults) == bool(fault)
    assert fault is None or any(fault in found for found in outcome.faults), outcome.faults
    assert all(kind_of(found) for found in outcome.faults)
