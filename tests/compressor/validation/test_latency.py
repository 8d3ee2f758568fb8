import numpy as np
import pytest

from compressor.batching import encode_texts
from compressor.console import SilentProgress
from compressor.predictors import TorchPredictor
from compressor.validation.latency import WARMUP_ROUNDS, batch_of_length, measure_latency


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 17), (2, 64)])
def test_batches_have_the_shape_and_no_padding(batch, length):
    encoded = [([101, 7, 102], [0, 0, 0]), ([101, 8, 9, 102], [0, 0, 0, 0])]
    made = batch_of_length(encoded, batch, length, pad_token_id=0)
    assert made["input_ids"].shape == (batch, length)
    assert made["attention_mask"].all()


class Recorder:
    """Counts its calls in a log shared with others, and delegates to a real predictor."""

    def __init__(self, name, predictor, log):
        self.tokenizer, self.label_names = predictor.tokenizer, predictor.label_names
        self._name, self._predictor, self._log = name, predictor, log

    def logits(self, batch):
        self._log.append(self._name)
        return self._predictor.logits(batch)


def test_variants_take_turns_and_every_shape_is_measured(small_classifier):
    log: list[str] = []
    predictor = TorchPredictor(small_classifier)
    encoded = encode_texts(small_classifier.tokenizer, ["a fine film"], None, 16)
    predictors = {name: Recorder(name, predictor, log) for name in ("a", "b")}
    figures = measure_latency(predictors, encoded, [1, 2], [8], 4, SilentProgress())
    assert log == ["a", "a", "b", "b"] * (2 * (WARMUP_ROUNDS + 4))
    for name in ("a", "b"):
        assert [(f.batch_size, f.sequence_length) for f in figures[name]] == [(1, 8), (2, 8)]
        for f in figures[name]:
            assert 0 < f.p50_ms <= f.p95_ms
            assert np.isclose(f.examples_per_second, f.batch_size / f.p50_ms * 1000, rtol=1e-2)
