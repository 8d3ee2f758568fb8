"""A family of models that is not part of the program: BERT's mathematics under names of its own."""

import json
from importlib.metadata import EntryPoint

import torch
from tiny_checkpoints import make_checkpoint
from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from compressor.models.encoders import registry
from compressor.models.encoders.bert import BertLayout
from compressor.models.encoders.layout import HeadLayer


class OtherConfig(BertConfig):
    model_type = "other"


class OtherClassifier(BertPreTrainedModel):
    """The encoder is `core`, the head `answer`, without a pooler; there are no segments in the inputs."""

    config_class = OtherConfig
    base_model_prefix = "core"

    def __init__(self, config):
        super().__init__(config)
        self.core = BertModel(config, add_pooling_layer=False)
        self.answer = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **options):
        found = self.core(input_ids, attention_mask, token_type_ids, **options)
        logits = self.answer(found.last_hidden_state[:, 0])
        return SequenceClassifierOutput(logits=logits, hidden_states=found.hidden_states)


class OtherLayout(BertLayout):
    model_type = "other"
    title = "Other"
    classifier_name = "OtherClassifier"
    blocks_path = "core.encoder.layer"

    def config_of(self, content):
        return OtherConfig.from_dict(content)

    def classifier_class(self):
        return OtherClassifier

    def is_head_weight(self, name):
        return name.startswith("answer.")

    def is_own_weight(self, name):
        return name.startswith(("core.", "answer."))

    def head(self, model):
        return (HeadLayer("answer", model.answer),)


OTHER = OtherLayout()


def install_family(monkeypatch, *entries):
    """Make entry points known as if a package with them were installed; by default that of this family."""
    entries = entries or (("other", "other_family:OTHER"),)
    points = [EntryPoint(name, value, registry.GROUP) for name, value in entries]
    found = {point.name: (point,) for point in points}
    monkeypatch.setattr(registry, "entry_points_of", lambda group: found if group == registry.GROUP else {})


def make_other_checkpoint(folder):
    """Write a classifier of the family with random weights of two layers, and its tokenizer."""
    make_checkpoint(folder, num_hidden_layers=2)
    content = json.loads((folder / "config.json").read_text())
    config = OtherConfig.from_dict({**content, "model_type": "other"})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = OtherClassifier(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder
