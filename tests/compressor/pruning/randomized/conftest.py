import pytest

from compressor.data.texts import load_text_data
from compressor.options import ColumnsConfig


@pytest.fixture(scope="module")
def texts(critic_quotes):
    return load_text_data(str(critic_quotes / "train.tsv"), ColumnsConfig(), "train").select(range(160))
