"""Attacks whose models compute on a GPU end as on the CPU."""

import pytest
import torch

from compressor.attacks.runner import attack_victim
from compressor.attacks.victims import Victim
from compressor.lexicon.sentence_encoder import SentenceEncoder
from compressor.models.classifier import load_classifier
from compressor.models.predictors import OnnxPredictor, TorchPredictor
from compressor.options import AttackConfig
from compressor.system.assets import encoder_directory
from compressor.system.console import SilentProgress

pytestmark = pytest.mark.cuda
LENGTH = 48
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_sentences_are_encoded_as_on_the_cpu():
    texts = ["a fine film", "a dull film, badly told", ""]
    one, other = (SentenceEncoder(encoder_directory(), device).encode(texts) for device in (CPU, CUDA))
    assert other.device == CPU
    assert torch.allclose(one, other, atol=1e-3)


@pytest.fixture(scope="module")
def attacked(small_pruned_dir, small_artifact_dir, word_vectors, test_quotes):
    """A function that attacks the same texts on a runtime and device, and returns the outcomes."""

    def outcomes(runtime: str, device: str) -> list[str]:
        if runtime == "torch":
            predictor = TorchPredictor(load_classifier(str(small_pruned_dir), torch.device(device)))
        else:
            predictor = OnnxPredictor(small_artifact_dir, 1, device)
        config = AttackConfig(attack="textfooler", word_vectors=str(word_vectors), query_budget=150)
        victim, texts = Victim(predictor, LENGTH), test_quotes.select(range(12))
        found, _ = attack_victim(victim, texts, config, 0, SilentProgress())
        return [example.outcome for example in found]

    return outcomes


def test_an_attack_on_cuda_ends_as_on_the_cpu(attacked):
    assert attacked("torch", "cuda") == attacked("torch", "cpu")


@pytest.mark.onnxruntime_cuda
def test_an_attack_on_an_artifact_on_cuda_ends_as_on_the_cpu(attacked):
    assert attacked("onnx", "cuda") == attacked("onnx", "cpu")
