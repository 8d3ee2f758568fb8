"""What has no effect leaves the exported model, and nothing else changes: float64, against the whole one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from compressor.models.classifier import Classifier, encoder_weights
from compressor.models.encoders.bert import BERT
from exporters.onnx import encoder_initializers, export_graph
from exporters.shrink import LayerWidths, layer_widths, shrink

HEADS, WIDTH, NEURONS = 3, 4, 10
MATRICES = ("query", "key", "value", "attention.output", "intermediate", "output")


def tiny_classifier(seed: int = 0) -> Classifier:
    """Two layers of random weights, biases too, in float64."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40,
        hidden_size=HEADS * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=NEURONS,
        max_position_embeddings=16,
        attn_implementation="eager",
    )
    model = BertForSequenceClassification(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return Classifier(model, None, "tiny")


def matrix(model, layer: int, name: str) -> torch.nn.Linear:
    block = model.bert.encoder.layer[layer]
    return {
        "query": block.attention.self.query,
        "key": block.attention.self.key,
        "value": block.attention.self.value,
        "attention.output": block.attention.output.dense,
        "intermediate": block.intermediate.dense,
        "output": block.output.dense,
    }[name]


def zero(model, layer: int, name: str, *, rows=(), columns=(), bias=False) -> None:
    linear = matrix(model, layer, name)
    with torch.no_grad():
        linear.weight[list(rows)] = 0
        linear.weight[:, list(columns)] = 0
        if bias:
            linear.bias[list(rows)] = 0


def logits(model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 40, (5, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([9, 1, 4, 7, 9])[:, None]).long()
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def assert_same(classifier: Classifier, shrunk: Classifier) -> None:
    torch.testing.assert_close(logits(shrunk.model), logits(classifier.model), rtol=1e-11, atol=1e-11)


WHOLE = LayerWidths(HEADS, WIDTH, WIDTH, NEURONS)


def test_a_whole_model_stays_as_it_is():
    classifier = tiny_classifier()
    shrunk = shrink(classifier)
    assert layer_widths(shrunk.model) == [WHOLE, WHOLE]
    for name, weight in encoder_weights(classifier.model).items():
        assert torch.equal(encoder_weights(shrunk.model)[name], weight), name


@pytest.mark.parametrize(
    ("name", "rows", "columns", "expected"),
    [
        ("intermediate", (1, 4, 5), (), LayerWidths(HEADS, WIDTH, WIDTH, NEURONS - 3)),
        ("output", (), (0, 9), LayerWidths(HEADS, WIDTH, WIDTH, NEURONS - 2)),
        # The whole second head.
        ("value", (4, 5, 6, 7), (), LayerWidths(HEADS - 1, WIDTH, WIDTH, NEURONS)),
        ("attention.output", (), (4, 5, 6, 7), LayerWidths(HEADS - 1, WIDTH, WIDTH, NEURONS)),
        # One dimension of each head.
        ("value", (0, 5, 10), (), LayerWidths(HEADS, WIDTH, WIDTH - 1, NEURONS)),
        ("attention.output", (), (3, 5, 8), LayerWidths(HEADS, WIDTH, WIDTH - 1, NEURONS)),
        ("key", (1, 2, 4, 6, 8, 11), (), LayerWidths(HEADS, WIDTH - 2, WIDTH, NEURONS)),
        # The second head needs all of its dimensions, so all keep as many.
        ("value", (0, 10), (), WHOLE),
        # Columns of what reads the hidden states cannot go: their input is there for all others.
        ("query", (), (0, 1), WHOLE),
        ("intermediate", (), (0, 1), WHOLE),
        # A query that is its bias still tells keys apart.
        ("query", (0, 4, 8), (), WHOLE),
    ],
)
def test_what_has_no_effect_is_cut(name, rows, columns, expected):
    classifier = tiny_classifier()
    zero(classifier.model, 1, name, rows=rows, columns=columns)
    shrunk = shrink(classifier)
    assert layer_widths(shrunk.model) == [WHOLE, expected]
    assert_same(classifier, shrunk)


def test_a_query_without_weights_and_bias_is_cut():
    classifier = tiny_classifier()
    zero(classifier.model, 0, "query", rows=(0, 4, 8), bias=True)
    shrunk = shrink(classifier)
    assert layer_widths(shrunk.model)[0].score_width == WIDTH - 1
    assert_same(classifier, shrunk)


NO_ATTENTION, NO_FEED_FORWARD = LayerWidths(0, 0, 0, NEURONS), LayerWidths(HEADS, WIDTH, WIDTH, 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Attention weights that are all alike still average the values.
        ("query", LayerWidths(HEADS, WIDTH, WIDTH, NEURONS)),
        ("key", LayerWidths(HEADS, 1, WIDTH, NEURONS)),
        ("value", NO_ATTENTION),
        ("attention.output", NO_ATTENTION),
        ("intermediate", NO_FEED_FORWARD),
        ("output", NO_FEED_FORWARD),
    ],
)
def test_a_matrix_of_zeros_alone_takes_the_whole_block_with_it(name, expected):
    classifier = tiny_classifier()
    linear = matrix(classifier.model, 0, name)
    zero(classifier.model, 0, name, rows=range(linear.out_features))
    shrunk = shrink(classifier)
    assert layer_widths(shrunk.model) == [expected, WHOLE]
    assert_same(classifier, shrunk)


def test_a_query_of_zeros_with_its_bias_leaves_one_dimension_of_scores():
    classifier = tiny_classifier()
    zero(classifier.model, 0, "query", rows=range(HEADS * WIDTH), bias=True)
    shrunk = shrink(classifier)
    assert layer_widths(shrunk.model)[0] == LayerWidths(HEADS, 1, WIDTH, NEURONS)
    assert_same(classifier, shrunk)


@settings(max_examples=60)
@given(data=st.data())
def test_outputs_stay_for_any_zeros(data):
    classifier = tiny_classifier(data.draw(st.integers(0, 5)))
    before = {name: weight.clone() for name, weight in encoder_weights(classifier.model).items()}
    for layer in range(2):
        for name in MATRICES:
            linear = matrix(classifier.model, layer, name)
            rows = data.draw(st.sets(st.integers(0, linear.out_features - 1)))
            columns = data.draw(st.sets(st.integers(0, linear.in_features - 1)))
            zero(classifier.model, layer, name, rows=rows, columns=columns, bias=data.draw(st.booleans()))
    pruned = {name: weight.clone() for name, weight in encoder_weights(classifier.model).items()}
    shrunk = shrink(classifier)
    assert_same(classifier, shrunk)
    sizes = [sum(w.numel() for w in encoder_weights(c.model).values()) for c in (classifier, shrunk)]
    assert sizes[1] <= sizes[0] == sum(weight.numel() for weight in before.values())
    for name, weight in encoder_weights(classifier.model).items():
        assert torch.equal(weight, pruned[name]), f"{name} of the model itself was changed"


def test_the_smaller_graph_gives_the_whole_models_logits(tmp_path):
    import onnxruntime

    classifier = tiny_classifier()
    zero(classifier.model, 0, "value", rows=(0, 1, 2, 3, 4, 8))
    zero(classifier.model, 0, "key", rows=(4, 5, 8, 9))
    zero(classifier.model, 1, "intermediate", rows=range(7))
    classifier.model.float()
    shrunk = shrink(classifier)
    export_graph(shrunk, tmp_path / "model.onnx")
    shapes = {name: tuple(w.shape) for name, w in encoder_initializers(tmp_path / "model.onnx", BERT).items()}
    assert shapes == {name: tuple(w.shape) for name, w in encoder_weights(shrunk.model).items()}
    assert shapes["bert.encoder.layer.0.attention.self.query"] == (2 * 2, HEADS * WIDTH)
    assert shapes["bert.encoder.layer.0.attention.self.value"] == (2 * 3, HEADS * WIDTH)
    assert shapes["bert.encoder.layer.1.intermediate.dense"] == (3, HEADS * WIDTH)
    ids = torch.randint(0, 40, (4, 6), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(
        None,
        {
            "input_ids": ids.numpy(),
            "attention_mask": mask.numpy(),
            "token_type_ids": np.zeros_like(ids.numpy()),
        },
    )
    with torch.no_grad():
        expected = classifier.model(input_ids=ids, attention_mask=mask).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
