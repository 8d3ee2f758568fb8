"""TextAttack is imported as it is carried, without flair and editdistance, whatever is installed."""

import hashlib
import re
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest
from project import ROOT

from compressor.attacks.resources import import_textattack
from compressor.attacks.stand_ins import standing_in
from compressor.errors import UserError
from compressor.system.carried import WHEELS, carried_version, carried_wheel, importable
from compressor.system.environment import installed_version

NAMES = ("flair", "flair.data", "flair.models", "editdistance")


@pytest.fixture
def neither(monkeypatch):
    """As in a process that has imported neither of the packages."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("flair", "editdistance")]:
        monkeypatch.delitem(sys.modules, name)


def test_what_textattack_imports_is_there_and_leaves_again(neither):
    with standing_in():
        flair = import_module("flair")
        flair.device = "cpu"
        assert issubclass(type("Own", (flair.data.Tokenizer,), {}), import_module("flair.data").Tokenizer)
        assert import_module("flair.models").SequenceTagger
        assert import_module("editdistance").eval("kitten", "sitting") == 3
    assert not [name for name in NAMES if name in sys.modules]


def test_they_leave_after_a_failed_import_too(neither):
    with pytest.raises(ImportError), standing_in():
        raise ImportError
    assert not [name for name in NAMES if name in sys.modules]


def test_a_package_that_the_program_has_imported_is_used(neither, monkeypatch):
    own = ModuleType("flair")
    monkeypatch.setitem(sys.modules, "flair", own)
    with standing_in():
        assert import_module("flair") is own
        assert "flair.data" not in sys.modules
    assert sys.modules["flair"] is own


def test_asking_for_a_tagger_names_the_way_out(neither):
    with standing_in():
        data, models = import_module("flair.data"), import_module("flair.models")
    for ask in (lambda: data.Sentence("a film"), lambda: models.SequenceTagger.load("upos-fast")):
        with pytest.raises(UserError, match="pip install flair, and import it before TextAttack"):
            ask()


def test_a_text_of_textattack_that_is_to_be_tagged_names_the_way_out():
    text = import_textattack().shared.AttackedText("A film")
    with pytest.raises(UserError, match="pip install flair"):
        text.pos_of_word_index(1)


def test_distances_of_textattack_are_those_of_levenshtein():
    attacked = import_textattack().shared.AttackedText
    constraint = import_textattack().constraints.overlap.LevenshteinEditDistance(2)
    for text, expected in (("A film", True), ("A fillm!", True), ("The film", False)):
        assert constraint._check_constraint(attacked(text), attacked("A film")) is expected


def test_the_carried_wheel_is_the_one_that_the_page_lists():
    wheels = sorted(WHEELS.glob("*.whl"))
    listed = re.findall(r"`(\S+\.whl)` \| \w+ \| `(\w{64})`", (WHEELS / "README.md").read_text())
    assert [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in wheels] == listed
    assert carried_version("textattack") == installed_version("textattack") == "0.3.11"
    assert carried_wheel("flair") is None
    assert carried_version("flair") is None


def test_the_carried_package_is_imported_before_an_installed_one(monkeypatch):
    assert str(carried_wheel("textattack")) in import_textattack().__file__
    before = list(sys.path)
    with importable("textattack"):
        assert sys.path == [str(carried_wheel("textattack")), *before]
    assert sys.path == before


@pytest.mark.slow
def test_textattack_is_imported_beside_packages_that_are_broken(tmp_path):
    for name in ("flair", "editdistance", "textattack"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('made for other versions')\n")
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from compressor.attacks.resources import import_textattack\n"
        "words = import_textattack().shared.utils.words_from_text('A film, not bad')\n"
        "assert words == ['A', 'film', 'not', 'bad']\n"
        "assert not {'flair', 'editdistance'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
