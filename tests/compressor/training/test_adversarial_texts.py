"""Training on adversarial texts: they learn the teacher's answer to the texts that they were made of."""

import pytest
import torch
from torch import nn

from compressor.models.batching import encode, pad
from compressor.models.classifier import encoder_linears, load_classifier
from compressor.pruning.patterns import Unstructured
from compressor.training.loop import GRADIENT_NORM, TrainingSet, apply_masks, train
from compressor.training.losses import answers_of, hidden_distance
from compressor.training.schedule import Schedule

LENGTH = 16


class Reversed:
    """In place of words replaced: each text backwards; remembers what it was to move away from."""

    def __init__(self, encoded):
        self.encoded = encoded
        self.answers = {}

    def seen(self, places, step, model, labels):
        self.answers |= dict(zip(places, labels.tolist(), strict=True))
        return [
            ([ids[0], *ids[-2:0:-1], ids[-1]], types) for ids, types in (self.encoded[at] for at in places)
        ]


@pytest.mark.parametrize("hidden_weight", [0.0, 2.0])
def test_an_adversarial_text_learns_the_teachers_answer_to_the_text_itself(
    small_classifier_dir, quotes, hidden_weight
):
    dense = load_classifier(str(small_classifier_dir))
    teacher = dense.model
    encoded = encode(dense.tokenizer, quotes.select(range(8)), LENGTH)
    adversarial = Reversed(encoded)
    texts = pad(encoded, 0)
    with torch.no_grad():
        answer = teacher(**texts, output_hidden_states=True)
    # Labels that the teacher does not give, which nothing may be learnt of.
    data = TrainingSet(encoded, 1 - answer.logits.argmax(dim=1), adversarial=adversarial)
    schedule = Schedule(
        1,
        1e-2,
        8,
        optimizer="sgd",
        weight_decay=0.0,
        distillation_weight=1.0,
        distillation_temperature=2.0,
        hidden_weight=hidden_weight,
        dropout=False,
    )
    trained, expected = (load_classifier(str(small_classifier_dir)) for _ in range(2))
    for classifier in (trained, expected):
        linears = encoder_linears(classifier.model).items()
        halved = {name: Unstructured(0.5).mask(linear.weight.abs()) for name, linear in linears}
        apply_masks(classifier.model, halved)
    before = {name: value.clone() for name, value in expected.model.named_parameters()}
    train(trained, data, schedule, seed=0, teacher=teacher)

    answers = dict(adversarial.answers)
    seen = sorted(answers)
    assert len(seen) == 4
    backwards = pad(adversarial.seen(seen, 0, teacher, torch.zeros(4)), 0)
    own = expected.model(**texts, output_hidden_states=True)
    values = [
        4 * nn.functional.kl_div((logits / 2).log_softmax(1), (taught / 2).softmax(1), reduction="batchmean")
        for logits, taught in (
            (own.logits, answer.logits),
            (expected.model(**backwards).logits, answer.logits[seen]),
        )
    ]
    distance = hidden_distance(own.hidden_states[1:], answer.hidden_states[1:], texts["attention_mask"])
    (sum(values) + hidden_weight * distance).backward()
    nn.utils.clip_grad_norm_(expected.model.parameters(), GRADIENT_NORM)
    for name, value in trained.model.named_parameters():
        moved = before[name] - 1e-2 * expected.model.get_parameter(name).grad
        torch.testing.assert_close(value, moved, rtol=1e-4, atol=1e-6, msg=name)
    assert answers == {place: int(answer.logits[place].argmax()) for place in seen}


def test_answers_are_classes_or_numbers():
    logits = torch.tensor([[0.5, 2.0], [3.0, -1.0]])
    assert torch.equal(answers_of(logits, torch.tensor([0, 0])), torch.tensor([1, 0]))
    assert torch.equal(answers_of(logits[:, :1], torch.tensor([0.1, 0.2])), logits[:, 0])
