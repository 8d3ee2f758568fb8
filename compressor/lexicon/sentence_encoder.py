"""Embeddings of sentences by a local BERT encoder, in place of the one that TextAttack would download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from compressor.errors import UserError, first_line
from compressor.models.batching import encode_texts, inputs_of, pad, sorted_batches
from compressor.models.checks import (
    fitted,
    key_problems,
    raise_problems,
    tokenizer_facts,
    tokenizer_problems,
    without_heads,
)
from compressor.models.classifier import WEIGHTS, load_tokenizer
from compressor.models.encoders.registry import layout_of_type
from compressor.models.loading import load_config, load_weights, read_config
from compressor.models.onednn import onednn_linears
from compressor.system.hub import quiet

LONGEST_ENCODED = 128


class SentenceEncoder:
    """Mean-pooled, normalised BERT embeddings of sentences.

    Args:
        directory: of a BERT encoder.
        device: where it computes.

    Raises:
        UserError: `directory` holds no BERT encoder.
    """

    def __init__(self, directory: Path, device: torch.device) -> None:
        from safetensors import SafetensorError

        for name in ("config.json", WEIGHTS):
            if not (directory / name).is_file():
                raise UserError(f"{directory}: is no directory of a BERT sentence encoder (no {name})")
        source = str(directory)
        config = read_config(source)
        raise_problems(source, [*key_problems(config)])
        self.tokenizer = load_tokenizer(source)
        facts = tokenizer_facts(self.tokenizer)
        raise_problems(source, tokenizer_problems(config, facts))
        layout = layout_of_type(config["model_type"])
        self._longest = min(LONGEST_ENCODED, layout.longest_input(config))
        try:
            with quiet():
                content = fitted(without_heads(config), int(self.tokenizer.pad_token_id))
                self._model = load_weights(layout.encoder_class(), source, config=load_config(content))
        except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
            raise UserError(
                f"{directory}: cannot be loaded as a sentence encoder: {first_line(error)}"
            ) from error
        self._model.to(device).eval()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """`(texts, hidden)` float32 on the CPU, each of unit length."""
        # TextAttack gives the original once for every candidate that it is compared with.
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        return self.encode_each(list(places))[[places[text] for text in texts]]

    @torch.inference_mode()
    def encode_each(self, texts: Sequence[str]) -> Tensor:
        """As `encode`, without a look for texts that are alike."""
        encoded = encode_texts(self.tokenizer, texts, None, self._longest)
        result = torch.empty(len(encoded), int(self._model.config.hidden_size))
        with onednn_linears(self._model):
            for indices in sorted_batches(encoded, 64):
                batch = pad(
                    [encoded[i] for i in indices], int(self.tokenizer.pad_token_id), self._model.device
                )
                hidden = self._model(**inputs_of(self._model, batch)).last_hidden_state
                weights = batch["attention_mask"][:, :, None].float()
                result[indices] = ((hidden * weights).sum(dim=1) / weights.sum(dim=1)).cpu()
        return torch.nn.functional.normalize(result, dim=1)
