"""Victims: what TextAttack calls to score texts, on PyTorch or on ONNX Runtime.

TextAttack's own wrapper pads every text to the model's full length and takes PyTorch models only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from scipy.special import softmax

from compressor.models.batching import encode_texts
from compressor.models.predictors import Predictor, check_finite, predict_encoded


def as_input(text: str, pair: str | None) -> str | tuple[str, str]:
    """What a victim is given for a text, or for two of them."""
    return text if pair is None else (text, pair)


class Victim:
    """A model wrapper in TextAttack's sense: texts in, class probabilities out.

    Texts are padded to the longest of a batch of similar lengths. TextAttack's goal function keeps
    an exact cache of the texts of one example.

    Args:
        predictor: what classifies.
        max_length: longest input in tokens.
        batch_size: texts a forward pass.
        name: of the model for a person; that of its directory if not given.

    Attributes:
        device: where the predictor computes, and with it what an attack has of models.
        scored: texts that it has scored so far.
    """

    def __init__(
        self, predictor: Predictor, max_length: int, batch_size: int = 32, name: str | None = None
    ) -> None:
        # TextAttack asks for the class of `model`, to warn of goals that do not fit it.
        self.model = predictor
        self.device = predictor.device
        self.max_length = max_length
        self.scored = 0
        self._batch_size = batch_size
        self._name = name

    @property
    def name(self) -> str:
        """Name of the model for a person."""
        return self._name or Path(self.model.source).name

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> torch.Tensor:
        """Probabilities `(texts, labels)` float32; a pair is a tuple of two texts.

        Raises:
            UserError: the model's logits are NaN or infinite.
        """
        self.scored += len(texts)
        is_pair = not isinstance(texts[0], str)
        first = [text[0] for text in texts] if is_pair else list(texts)
        second = [text[1] for text in texts] if is_pair else None
        encoded = encode_texts(self.model.tokenizer, first, second, self.max_length)  # type: ignore[arg-type]
        logits = predict_encoded(self.model, encoded, self._batch_size)
        check_finite(logits, self.model.source)
        return torch.from_numpy(softmax(logits, axis=1))
