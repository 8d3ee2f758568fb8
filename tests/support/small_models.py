"""MiniLM made small enough for tests: fewer layers, neurons and word pieces, with the weights that stay."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch.nn import Parameter
from transformers import BertModel, BertTokenizerFast


def keep_neurons(model: BertModel, width: int) -> None:
    """Keep each layer's intermediate neurons of the largest weights."""
    for block in model.encoder.layer:
        inner, outer = block.intermediate.dense, block.output.dense
        kept = (inner.weight.norm(dim=1) * outer.weight.norm(dim=0)).topk(width).indices.sort().values
        inner.weight = Parameter(inner.weight[kept].detach().clone())
        inner.bias = Parameter(inner.bias[kept].detach().clone())
        outer.weight = Parameter(outer.weight[:, kept].detach().clone())
    model.config.intermediate_size = width


def keep_word_pieces(
    model: BertModel, tokenizer: BertTokenizerFast, texts: Iterable[str], folder: Path
) -> BertTokenizerFast:
    """Keep the word pieces of `texts` and single characters; return a tokenizer from a file in `folder`.

    The texts have the same pieces as before: WordPiece takes the longest that there is.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    used = {piece for ids in tokenizer(list(texts))["input_ids"] for piece in ids}
    letters = {number for number, piece in enumerate(pieces) if len(piece.removeprefix("##")) == 1}
    kept = sorted(used | letters | set(tokenizer.all_special_ids))
    weight = model.embeddings.word_embeddings.weight[kept].detach().clone()
    model.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(
        weight, freeze=False, padding_idx=kept.index(tokenizer.pad_token_id)
    )
    model.config.vocab_size = len(kept)
    model.config.pad_token_id = kept.index(tokenizer.pad_token_id)
    file = folder / "vocab.txt"
    file.write_text("".join(f"{pieces[number]}\n" for number in kept), encoding="utf-8")
    return BertTokenizerFast(
        str(file), do_lower_case=tokenizer.do_lower_case, model_max_length=tokenizer.model_max_length
    )
