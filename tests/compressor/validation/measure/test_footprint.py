import numpy as np

from compressor.models.batching import pad
from compressor.models.classifier import WEIGHTS
from compressor.options import RunConfig
from compressor.system.processes import peak_memory_bytes
from compressor.validation.measure import footprint
from compressor.validation.measure.footprint import measure_footprint


def test_a_classifier_takes_its_weights_and_nothing_of_what_its_parent_holds(small_classifier_dir):
    weights = (small_classifier_dir / WEIGHTS).stat().st_size
    held = np.ones(2**26)
    batch = pad([([101, 7, 102], [0, 0, 0])] * 2, 0)
    found = measure_footprint(str(small_classifier_dir), RunConfig(device="cpu", threads=1), batch)
    assert 0.5 * weights < found.model_memory_bytes < 8 * weights
    assert found.model_memory_bytes < found.peak_memory_bytes
    assert held.nbytes < peak_memory_bytes()
    assert found.peak_memory_bytes < peak_memory_bytes()
    assert found.load_seconds > 0
    assert (found.batch_size, found.sequence_length) == (2, 3)


def test_a_reading_that_falls_behind_the_one_before_is_no_negative_memory(small_classifier_dir, monkeypatch):
    """Linux keeps a peak only now and then, so a later reading of it can be a few pages less."""
    readings = iter([900_000, 752_544])
    monkeypatch.setattr(footprint, "peak_memory_bytes", lambda: next(readings))
    monkeypatch.setattr(footprint, "in_own_process", lambda work, *arguments: work(*arguments))
    batch = pad([([101, 7, 102], [0, 0, 0])], 0)
    found = measure_footprint(str(small_classifier_dir), RunConfig(device="cpu", threads=1), batch)
    assert (found.model_memory_bytes, found.peak_memory_bytes) == (0, 900_000)
