"""What BERT's layout says, held against a model of transformers."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from compressor.models.encoders.bert import BERT
from compressor.models.encoders.registry import layout_of
from compressor.models.structure import linear_at


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=6
    )
    return BertForSequenceClassification(config).eval()


def test_the_layout_of_a_model_is_found(model):
    assert layout_of(model) is BERT
    assert layout_of(model.bert) is BERT


def test_blocks_and_their_groups_are_all_linear_layers_of_the_encoder_in_order(model):
    assert list(BERT.blocks(model)) == list(model.bert.encoder.layer) == list(BERT.blocks(model.bert))
    names = [name for _, group in BERT.groups(model) for name in group]
    linears = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layer." in n]
    assert names == linears
    assert [index for index, _ in BERT.groups(model)] == [0] * 4 + [1] * 4 + [2] * 4
    assert [names for index in range(3) for names in BERT.group_names(index)] == [
        names for _, names in BERT.groups(model)
    ]


def test_the_linear_layers_of_a_group_share_their_input(model):
    caught = {}
    block = BERT.blocks(model)[1]
    names = [name for group in BERT.linears.groups for name in group]
    handles = [
        linear_at(block, name).register_forward_pre_hook(
            lambda _, inputs, name=name: caught.__setitem__(name, inputs[0])
        )
        for name in names
    ]
    model(input_ids=torch.arange(12).reshape(2, 6))
    for handle in handles:
        handle.remove()
    for group in BERT.linears.groups:
        assert all(torch.equal(caught[name], caught[group[0]]) for name in group)
    assert list(caught) == names


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("bert.encoder.layer.11.attention.self.query", (11, "attention.self.query")),
        ("encoder.layer.0.output.dense.weight", (0, "output.dense.weight")),
        ("model.bert.encoder.layer.2.output.dense", (2, "output.dense")),
        ("bert.encoder.layer", None),
        ("bert.pooler.dense", None),
        ("bert.decoder_encoder.layer.1.x", None),
        ("classifier", None),
    ],
)
def test_a_name_is_split_into_block_and_place(name, place):
    assert BERT.place_of(name) == place


def test_head_layers_make_the_logits_of_the_first_tokens(model):
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        found = model.base_model(input_ids=ids).last_hidden_state[:, 0]
        for layer in BERT.head(model):
            assert linear_at(model, layer.name) is layer.linear
            found = layer.output(found)
        assert torch.equal(found, model(input_ids=ids).logits)


def test_each_weight_is_of_the_head_or_not(model):
    heads = {name for name in model.state_dict() if BERT.is_head_weight(name)}
    assert heads == {
        f"{name}.{kind}" for name in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")
    }
    assert all(BERT.is_own_weight(name) for name in model.state_dict())


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("encoder.layer.0.output.dense.weight", True),
        ("embeddings.word_embeddings.weight", True),
        ("bert.embeddings.position_ids", False),
        ("embeddings.token_type_ids", False),
        ("cls.predictions.bias", False),
        ("classifier.dense.weight", True),
        ("qa_outputs.weight", False),
    ],
)
def test_weights_of_other_heads_are_not_its_own(name, own):
    assert BERT.is_own_weight(name) is own


def test_sizes_are_those_of_a_configuration_or_of_its_default():
    default = BertConfig()
    assert {key: getattr(default, key) for key in BERT.sizes} == dict(BERT.sizes)
    assert BERT.longest_input({}) == 512
    assert BERT.longest_input({"max_position_embeddings": 64}) == 64
    assert BERT.segments({}) == 2
    assert BERT.segments({"type_vocab_size": 1}) == 1


def test_classes_and_configuration_are_those_of_transformers(model):
    assert BERT.classifier_class() is BertForSequenceClassification
    assert BERT.classifier_class().__name__ == BERT.classifier_name
    assert BERT.encoder_class() is BertModel
    assert isinstance(BERT.config_of({"hidden_size": 8}), BertConfig)
    assert BERT.embeddings(model) is model.bert.embeddings


def test_a_block_tells_its_heads_and_its_activation(model):
    block = BERT.blocks(model)[2]
    assert BERT.head_count(block) == 2
    BERT.set_head_count(block, 1)
    assert BERT.head_count(block) == 1
    assert block.attention.self.all_head_size == 4
    BERT.set_head_count(block, 2)
    assert BERT.scores_by_content(block)
    values = torch.linspace(-2, 2, 5)
    assert torch.equal(BERT.activation(block)(values), torch.nn.functional.gelu(values))


@pytest.mark.parametrize(
    ("name", "title"),
    zip(
        [name for group in BERT.linears.groups for name in group],
        ["query", "key", "value", "attention output", "intermediate", "output"],
        strict=True,
    ),
)
def test_matrices_have_short_titles(name, title):
    assert BERT.matrix_title(name) == title
