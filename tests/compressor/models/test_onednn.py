"""Linear layers by oneDNN: the same numbers and gradients, and only where it is asked for."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.models import onednn
from compressor.models.onednn import OneDnnLinear, onednn_linears

sizes = st.integers(1, 40)


@pytest.fixture
def faster(monkeypatch):
    monkeypatch.setattr(onednn, "is_faster", lambda: True)


def results(linear, inputs, outer):
    """Output, and the gradients of input, weight and bias, of `sum(outer * output)`."""
    inputs = inputs.clone().requires_grad_()
    output = linear(inputs)
    return output, *torch.autograd.grad((outer * output).sum(), [inputs, *linear.parameters()])


@settings(deadline=None)
@given(
    leading=st.lists(st.integers(1, 6), max_size=3),
    width=sizes, height=sizes, bias=st.booleans(), turned=st.booleans(), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_outputs_and_gradients_are_those_of_float64(leading, width, height, bias, turned, seed):
    generator = torch.Generator().manual_seed(seed)
    linear = OneDnnLinear(width, height, bias=bias)
    for parameter in linear.parameters():
        parameter.data.normal_(generator=generator)
    inputs = torch.randn(*leading, width, generator=generator)
    outer = torch.randn(*leading, height, generator=generator)
    if turned and leading:
        # Attention hands over views whose rows do not lie one behind the other.
        inputs, outer = (x.transpose(0, -2).contiguous().transpose(0, -2) for x in (inputs, outer))
    exact = nn.Linear(width, height, bias=bias, dtype=torch.float64)
    exact.load_state_dict({name: value.double() for name, value in linear.state_dict().items()})
    for found, expected in zip(
        results(linear, inputs, outer), results(exact, inputs.double(), outer.double()), strict=True
    ):
        assert found.shape == expected.shape
        assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_within_the_context_alone_linear_layers_are_computed_by_onednn(faster):
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 2)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with onednn_linears(model):
        kinds = [type(module) for module in model.modules()]
        assert kinds.count(OneDnnLinear) == 2
        # As when an evaluation interrupts a training.
        with onednn_linears(model):
            model(torch.randn(3, 4))
        assert type(model[0]) is OneDnnLinear
        copied = copy.deepcopy(model)
    assert type(model[0]) is type(model[2][0]) is nn.Linear
    assert all(torch.equal(value, before[name]) for name, value in copied.state_dict().items())


def test_layers_of_many_widths_keep_what_they_have(faster):
    model = nn.Sequential(*(nn.Linear(width, width + 1) for width in range(1, onednn.MOST_SHAPES + 2)))
    with onednn_linears(model, one := nn.Sequential(nn.Linear(4, 8))):
        assert all(type(linear) is nn.Linear for linear in model)
        assert type(one[0]) is OneDnnLinear


def test_after_an_error_they_are_as_before(faster):
    model = nn.Sequential(nn.Linear(4, 8))
    with pytest.raises(RuntimeError), onednn_linears(model):
        model(torch.randn(3, 5))
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("vendor", ["GenuineIntel", None])
def test_other_processors_keep_what_they_have(monkeypatch, vendor):
    monkeypatch.setattr(onednn, "processor_vendor", lambda: vendor)
    onednn.is_faster.cache_clear()
    model = nn.Sequential(nn.Linear(4, 8))
    with onednn_linears(model):
        assert type(model[0]) is nn.Linear
    onednn.is_faster.cache_clear()


@pytest.mark.parametrize(
    ("inputs", "precision"),
    [(torch.randn(0, 4), torch.float32), (torch.randn(3, 4).double(), torch.float64)],
    ids=["no rows", "float64"],
)
def test_what_onednn_is_not_for_is_computed_as_ever(inputs, precision):
    linear = OneDnnLinear(4, 2).to(precision)
    output = linear(inputs)
    assert output.dtype == precision
    assert torch.equal(output, nn.functional.linear(inputs, linear.weight, linear.bias))


def test_autocast_has_its_way():
    linear = OneDnnLinear(4, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.randn(3, 4)).dtype == torch.bfloat16
