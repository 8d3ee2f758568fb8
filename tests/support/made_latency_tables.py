"""Latency tables of any shape, whose times are linear in the widths."""

from compressor.models.classifier import Classifier
from compressor.models.latency_table import BlockTimes, LatencyTable, TableShape
from compressor.models.structure import head_size, linear_at

SHAPES = [TableShape(batch_size=1, length=16, weight=1), TableShape(batch_size=4, length=32, weight=3)]

# 3.4 times dense PyTorch in the runtime, 100 without any block, about 15 with next to nothing.
SMALL = LatencyTable(
    runtime="onnxruntime",
    precision="int8",
    threads=1,
    layers=2,
    heads=4,
    neurons=64,
    hidden_size=32,
    head_size=8,
    shapes=[TableShape(batch_size=1, length=8, weight=1.0)],
    attention=BlockTimes(widths=[0, 1, 4], ms=[[0.0], [1.0], [4.0]]),
    feed_forward=BlockTimes(widths=[0, 16, 64], ms=[[0.0], [2.0], [10.0]]),
    rest_ms=[1.0],
    dense_ms=[29.0],
    reference_ms=[100.0],
    environment={},
)


def linear_times(widths: list[int], whole_ms: float) -> BlockTimes:
    """Times that are proportional to the width, three times as long at the second shape."""
    rows = [[whole_ms * width / widths[-1], 3 * whole_ms * width / widths[-1]] for width in widths]
    return BlockTimes(widths=widths, ms=rows)


def table_for(
    classifier: Classifier, attention_ms: float = 1.0, feed_forward_ms: float = 2.0
) -> LatencyTable:
    """A table for a classifier's shape: half a millisecond is left of it without its blocks."""
    layout = classifier.layout
    blocks = layout.blocks(classifier.model)
    heads = layout.head_count(blocks[0])
    neurons = linear_at(blocks[0], layout.linears.neurons_out).in_features
    dense = 0.5 + len(blocks) * (attention_ms + feed_forward_ms)
    return LatencyTable(
        runtime="onnxruntime",
        precision="int8",
        threads=1,
        layers=len(blocks),
        heads=heads,
        neurons=neurons,
        hidden_size=classifier.model.config.hidden_size,
        head_size=head_size(classifier.model),
        shapes=SHAPES,
        attention=linear_times(list(range(heads + 1)), attention_ms),
        feed_forward=linear_times([neurons * part // 8 for part in range(9)], feed_forward_ms),
        rest_ms=[0.5, 1.5],
        dense_ms=[dense, 3 * dense],
        reference_ms=[2 * dense, 6 * dense],
        environment={},
    )
