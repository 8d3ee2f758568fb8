"""Each version of transformers reads the same tokenizer from what either wrote."""

import json

import pytest
from tokenizer_kinds import KINDS, SAVED, ids_of, make_kind
from transformers import AutoTokenizer

from compressor.models.classifier import load_tokenizer
from compressor.models.transformers_versions import save_tokenizer
from compressor.system.hub import quiet


@pytest.mark.parametrize("written", ["source", "saved"])
@pytest.mark.parametrize("version", ["transformers4", "transformers5"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_of_either_version_is_read_as_it_was(kind, version, written):
    folder = SAVED / version / kind.replace(" ", "_")
    with quiet():
        found = ids_of(load_tokenizer(str(folder / written)))
    assert found == json.loads((folder / "ids.json").read_text())


def test_the_kinds_differ():
    """Otherwise the test above could not fail."""
    for version in ("transformers4", "transformers5"):
        found = {(folder / "ids.json").read_text() for folder in (SAVED / version).iterdir()}
        assert len(found) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_read_by_transformers_alone(kind, tmp_path):
    made = make_kind(kind, tmp_path / "source")
    (tmp_path / "saved").mkdir()
    save_tokenizer(load_tokenizer(str(tmp_path / "source")), tmp_path / "saved")
    with quiet():
        found = AutoTokenizer.from_pretrained(tmp_path / "saved")
        assert ids_of(found) == ids_of(made)
        assert found.model_input_names == made.model_input_names
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert not {"local_files_only", "is_local", "backend"} & set(config)
