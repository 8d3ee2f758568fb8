"""Which sources decide a stage: those that it imports, and not how results are shown."""

import shutil

import pytest

from compressor.models.reuse import MODULES, SHOWN
from compressor.pruning.interface import ALGORITHMS
from compressor.system import code_version as module
from compressor.system.code_version import code_version, sources_of

FILES = {
    "compressor/__init__.py": "",
    "compressor/stage.py": "from compressor import top\nimport compressor.inner.deep\n",
    "compressor/top.py": "def f():\n    from compressor.late import value\n",
    "compressor/late.py": "KINDS = {'a': 'compressor.named:function'}\nOTHER = 'compressor.text'\n",
    "compressor/named.py": "import os\nfrom exporters.graph import x\n",
    "compressor/text.py": "",
    "compressor/words.txt": "a",
    "compressor/inner/__init__.py": "import compressor.above\n",
    "compressor/inner/deep.py": "from compressor.display.pages import show\n",
    "compressor/inner/unused.py": "",
    "compressor/above.py": "if TYPE_CHECKING:\n import compressor.typed\nelse:\n import compressor.run\n",
    "compressor/typed.py": "",
    "compressor/run.py": "",
    "compressor/display/__init__.py": "",
    "compressor/display/pages.py": "import compressor.only_shown\n",
    "compressor/only_shown.py": "",
    "compressor/display/templates/page.css": "a",
    "exporters/__init__.py": "",
    "exporters/graph.py": "",
}
SHOWN_ONLY = {
    "compressor/display/pages.py",
    "compressor/only_shown.py",
    "compressor/display/templates/page.css",
}
UNUSED = {"compressor/text.py", "compressor/inner/unused.py", "compressor/typed.py"}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A small program in place of ours."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "_root", lambda: tmp_path)
    forget()
    yield tmp_path
    forget()


def forget():
    module._imports.cache_clear()
    code_version.cache_clear()


def test_what_a_stage_imports_anywhere_counts_and_nothing_else(program):
    assert set(sources_of("compressor.stage")) == set(FILES) - SHOWN_ONLY - UNUSED
    assert set(sources_of("compressor.stage", is_shown=True)) == set(FILES) - UNUSED


@pytest.mark.parametrize("is_shown", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_an_edit_changes_the_version_if_the_file_counts(program, name, is_shown):
    before = code_version("compressor.stage", is_shown=is_shown)
    (program / name).write_text(FILES[name] + "\n")
    forget()
    counts = name not in UNUSED and (is_shown or name not in SHOWN_ONLY)
    assert (code_version("compressor.stage", is_shown=is_shown) != before) is counts


def test_the_place_of_the_program_does_not_count(program, tmp_path_factory, monkeypatch):
    before = code_version("compressor.stage")
    moved = shutil.copytree(program, tmp_path_factory.mktemp("moved") / "program")
    monkeypatch.setattr(module, "_root", lambda: moved)
    forget()
    assert code_version("compressor.stage") == before


@pytest.mark.parametrize("kind", MODULES)
def test_no_stage_but_the_report_depends_on_how_results_are_shown(kind):
    names = set(sources_of(MODULES[kind], is_shown=kind in SHOWN))
    shows = {
        name for name in names if name.endswith((".css", ".j2")) or name.startswith("compressor/commands/")
    }
    assert bool(shows) is (kind in SHOWN)
    assert "compressor/options/training.py" in names


def test_making_models_does_not_depend_on_the_report():
    for kind in ("finetune", "prune"):
        assert not any(name.startswith("compressor/validation/") for name in sources_of(MODULES[kind]))


def test_each_algorithm_decides_pruning_and_none_fine_tuning():
    pruning, training = (set(sources_of(MODULES[kind])) for kind in ("prune", "finetune"))
    for place in ALGORITHMS.values():
        path = place.partition(":")[0].replace(".", "/") + ".py"
        assert path in pruning
        assert path not in training
    assert "compressor/lexicon/stopwords.txt" in training
