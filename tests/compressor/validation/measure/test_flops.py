import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from compressor.models.classifier import encoder_weights, load_classifier
from compressor.models.encoders.bert import BERT
from compressor.validation.measure.flops import encoder_flops


def test_it_counts_what_pytorch_counts_in_the_encoder(small_classifier_dir):
    # PyTorch does not count its fused attention on a CPU.
    model, batch, length = load_classifier(str(small_classifier_dir), attention="eager").model, 3, 10
    hidden = torch.zeros(batch, length, model.config.hidden_size)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.bert.encoder(hidden)
    found = encoder_flops(BERT, encoder_weights(model), batch, length)
    assert found.all_weights == counter.get_total_flops()
    assert (found.batch_size, found.sequence_length) == (batch, length)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 6), st.integers(1, 4), st.integers(1, 5))
def test_zeros_of_weights_are_left_out_and_attention_is_not(rows, columns, zeros, batch, length):
    weight = torch.ones(rows, columns)
    weight.view(-1)[:zeros] = 0
    kept = int(weight.sum())
    weights = {
        "encoder.layer.0.attention.self.query": weight,
        "encoder.layer.0.output.dense": torch.ones(2, 2),
    }
    attention = 2 * batch * length * length * rows
    found = encoder_flops(BERT, weights, batch, length)
    assert found.all_weights == 2 * (batch * length * (rows * columns + 4) + attention)
    assert found.nonzero_weights == 2 * (batch * length * (kept + 4) + attention)
