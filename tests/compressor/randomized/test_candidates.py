"""What candidates are compared by."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from compressor.randomized.candidates import answer_shift


@given(seed=st.integers(0, 2**31 - 1), texts=st.integers(1, 6), labels=st.integers(2, 4))
def test_answer_shift_is_the_mean_divergence(seed, texts, labels):
    generator = torch.Generator().manual_seed(seed)
    logits, perturbed = (
        3 * torch.randn(texts, labels, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    expected = entropy(softmax(logits.numpy(), axis=1), softmax(perturbed.numpy(), axis=1), axis=1).mean()
    assert float(answer_shift(logits, perturbed)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(answer_shift(logits, logits + 5)) == pytest.approx(0, abs=1e-12)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6))
def test_answer_shift_of_a_regression_is_the_mean_squared_difference(rows):
    logits, perturbed = torch.tensor(rows, dtype=torch.float64).T[:, :, None]
    expected = np.mean([(a - b) ** 2 for a, b in rows])
    assert float(answer_shift(logits, perturbed)) == pytest.approx(expected, abs=1e-12)
