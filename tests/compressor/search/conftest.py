"""What the searches of the tests are made with."""

import shutil

import pytest
from made_latency_tables import table_for

from compressor.models.classifier import load_classifier


@pytest.fixture(scope="module")
def texts(critic_quotes, tmp_path_factory):
    """Calibration, selection and test texts: no text is in two of them."""
    folder = tmp_path_factory.mktemp("texts")
    header, *lines = (critic_quotes / "test.tsv").read_text(encoding="utf-8").splitlines()
    lines = list(dict.fromkeys(lines))
    half = len(lines) // 2
    for name, part in (("selection", lines[:half]), ("test", lines[half:])):
        (folder / f"{name}.tsv").write_text("\n".join([header, *part]) + "\n", encoding="utf-8")
    shutil.copy(critic_quotes / "train.tsv", folder / "calibration.tsv")
    return folder


@pytest.fixture(scope="module")
def table_file(small_classifier_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.json"
    path.write_text(table_for(load_classifier(str(small_classifier_dir), "cpu")).model_dump_json())
    return path
