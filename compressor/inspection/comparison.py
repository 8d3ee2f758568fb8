"""How much of the dense model's knowledge a sparse model keeps, seen inside the two models.

Three views of Li et al., *Towards Robust Pruning* (EMNLP 2023): the distance of the [CLS] embeddings
layer by layer (its table 4), the reconstruction error of each linear layer (what its section 3.2
minimises), and attention maps (its figure 2). Padding enters none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.data.texts import TextData, log_notes
from compressor.errors import UserError
from compressor.inspection.texts import KnowledgeOptions, load_sets
from compressor.models.batching import Batch, Encoded, encode, inputs_of, pad, sorted_batches
from compressor.models.classifier import Classifier, check_pairs, encoder_linears, load_classifier
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.manifest import is_artifact
from compressor.options import ColumnsConfig, RunConfig
from compressor.system.console import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The outputs of all linear layers of a batch, in both models, are in memory at once: 0.7 GB for BERT-base.
BATCH_TOKENS = 1024
ATTENTION_DIGITS = 6
WIDTH_DIFFERS = "the output widths differ"
DENSE_IS_ZERO = "the dense output is zero"


@dataclass(frozen=True)
class Comparison:
    """A sparse model against the dense one on one set of texts.

    Attributes:
        texts, tokens: how many were compared; tokens without padding.
        cosine, euclidean: mean over the texts of `cls_distances`, by hidden state: embeddings
            first, then encoder layers 1 to L.
        squared_errors: `squared_error_sums` by the linear layer's name, for those whose output
            widths agree.
    """

    texts: int
    tokens: int
    cosine: list[float]
    euclidean: list[float]
    squared_errors: dict[str, tuple[float, float]]


def cls_distances(dense: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
    """Distances between the hidden states `h_d`, dense, and `h`, sparse, of each text's [CLS].

    The paper's table 4 gives a "distance" between sentence embeddings without its formula, so here
    are the two usual ones; neither need be the paper's, whose figures do not compare with these.

    Args:
        dense, sparse: `(..., hidden)`, no vector of zeros.

    Returns:
        Two tensors `(...)` float64, without unit: the cosine distance `1 - cos(h_d, h)`, 0 to 2, and
        the relative Euclidean distance `||h - h_d|| / ||h_d||`. Both are exactly 0 for equal vectors.
    """
    dense, sparse = dense.double(), sparse.double()
    dense_norm = dense.norm(dim=-1, keepdim=True)
    # Half the squared distance of the unit vectors is 1 - cos, without its cancellation near 0.
    units = sparse / sparse.norm(dim=-1, keepdim=True) - dense / dense_norm
    return units.square().sum(dim=-1) / 2, (sparse - dense).norm(dim=-1) / dense_norm.squeeze(-1)


def squared_error_sums(dense: Tensor, sparse: Tensor) -> Tensor:
    """`||Y - Yh||^2` and `||Y||^2`, `(2,)` float64, of outputs `(tokens, out)` of a linear layer."""
    dense, sparse = dense.double(), sparse.double()
    return torch.stack([(dense - sparse).square().sum(), dense.square().sum()])


@torch.no_grad()
def compare_models(dense: PreTrainedModel, sparse: PreTrainedModel, batches: Iterable[Batch]) -> Comparison:
    """Run both models on the same batches, each on its own hidden states, and compare what they hold.

    The outputs of the linear layers include the bias, since pruning may change it.

    Args:
        batches: at least one, padded in any way.
    """
    dense_linears, sparse_linears = encoder_linears(dense), encoder_linears(sparse)
    names = [n for n in dense_linears if dense_linears[n].out_features == sparse_linears[n].out_features]
    sums = {name: torch.zeros(2, dtype=torch.float64, device=dense.device) for name in names}
    cosines, euclideans, tokens = [], [], 0
    for batch in batches:
        tokens += int(batch["attention_mask"].sum())
        with _outputs_of(dense_linears, names, batch) as dense_outputs:
            dense_cls = _first_tokens(dense, batch)
        with _outputs_of(sparse_linears, names, batch) as sparse_outputs:
            sparse_cls = _first_tokens(sparse, batch)
        cosine, euclidean = cls_distances(dense_cls, sparse_cls)
        cosines.append(cosine)
        euclideans.append(euclidean)
        for name in names:
            sums[name] += squared_error_sums(dense_outputs[name], sparse_outputs[name])
    every_cosine, every_euclidean = torch.cat(cosines, dim=1), torch.cat(euclideans, dim=1)
    return Comparison(
        texts=every_cosine.shape[1],
        tokens=tokens,
        cosine=every_cosine.mean(dim=1).tolist(),
        euclidean=every_euclidean.mean(dim=1).tolist(),
        squared_errors={name: (float(error), float(size)) for name, (error, size) in sums.items()},
    )


def _first_tokens(model: PreTrainedModel, batch: Batch) -> Tensor:
    """[CLS] in each hidden state, `(layers + 1, texts, hidden)`."""
    hidden = model.base_model(**inputs_of(model, batch), output_hidden_states=True).hidden_states
    return torch.stack([state[:, 0] for state in hidden])


@contextmanager
def _outputs_of(
    linears: dict[str, nn.Linear], names: Sequence[str], batch: Batch
) -> Iterator[dict[str, Tensor]]:
    """Keep what the named layers put out for real tokens, `(tokens, out)`, while the block runs."""
    outputs: dict[str, Tensor] = {}
    real = batch["attention_mask"].bool()

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            # Some layers project positions too, after the tokens.
            if name not in outputs:
                outputs[name] = output[real]

        return hook

    handles = [linears[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def attention_map(model: PreTrainedModel, encoded: Encoded, layer: int) -> Tensor:
    """Mean over the heads of an encoder layer's attention for one text, without padding.

    Args:
        model: with eager attention, the only kind that hands its probabilities out.
        layer: 1 to L.

    Returns:
        `(tokens, tokens)`: row, the token that attends; column, what it attends to. Rows sum to 1.
    """
    batch = pad([encoded], 0, model.device)
    output = model.base_model(**inputs_of(model, batch), output_attentions=True)
    probabilities: Tensor = output.attentions[layer - 1]
    return probabilities[0].mean(dim=0)


def compare_directories(
    model: str,
    options: KnowledgeOptions,
    columns: ColumnsConfig,
    run: RunConfig,
    device: torch.device,
    progress: Progress,
) -> dict[str, Any]:
    """Compare two classifiers, directories or hub ids; return a record that is ready for JSON.

    `sets` holds a comparison by name: "clean", and "attacked" where attacked texts were given. A
    linear layer whose widths differ, as after heads or neurons were removed, has the relative
    error None and says why under `skipped`.

    Raises:
        UserError: bad models, texts or options, or models that have nothing in common.
    """
    texts = load_sets(options, columns, run.seed)
    for data in texts.sets.values():
        log_notes(data, progress)
    dense, sparse = (_load(source, device, columns.max_length) for source in (options.against, model))
    _check_comparable(dense, sparse)
    layers = int(dense.model.config.num_hidden_layers)
    layer = layers if options.attention_layer is None else options.attention_layer
    if not 1 <= layer <= layers:
        raise UserError(f"--attention-layer {layer}: the models have layers 1 to {layers}")
    pad_token_id = int(dense.tokenizer.pad_token_id)
    sets = {}
    for name, data in texts.sets.items():
        for one in (dense, sparse):
            check_pairs(one.source, one.model.config, one.tokenizer, data.pairs is not None)
        encoded = encode(dense.tokenizer, data, columns.max_length)
        groups = sorted_batches(encoded, _batch_size(encoded))
        batches = (
            pad([encoded[i] for i in indices], pad_token_id, device)
            for indices in progress.track(groups, f"Comparing on {name} texts")
        )
        comparison = compare_models(dense.model, sparse.model, batches)
        linears = list(encoder_linears(dense.model))
        sets[name] = {"source": texts.sources[name], **_comparison_record(dense.layout, comparison, linears)}
    maps = {
        name: _maps_record(dense, sparse, sentence, layer, columns.max_length)
        for name, sentence in texts.sentences.items()
    }
    return {
        "against": options.against,
        "seed": run.seed,
        "max_length": columns.max_length,
        "attacks": texts.attacks,
        "sets": sets,
        "attention": {"layer": layer, "maps": maps},
    }


def _load(source: str, device: torch.device, max_length: int) -> Classifier:
    if is_artifact(Path(source)):
        raise UserError(
            f"{source}: is an exported artifact, whose layers cannot be inspected; with --against, "
            f"give the classifier that it was exported from"
        )
    return load_classifier(source, device, attention="eager", lengths={"max_length": max_length})


def _check_comparable(dense: Classifier, sparse: Classifier) -> None:
    for key, meaning in (("num_hidden_layers", "encoder layers"), ("hidden_size", "hidden units")):
        theirs, ours = (getattr(one.model.config, key) for one in (dense, sparse))
        if theirs != ours:
            raise UserError(
                f"--against {dense.source}: has {theirs} {meaning}, and {sparse.source} has {ours}; "
                f"give the dense model that {sparse.source} was made from"
            )
    if dense.tokenizer.get_vocab() != sparse.tokenizer.get_vocab():
        raise UserError(
            f"--against {dense.source}: has a different vocabulary than {sparse.source}; give the dense "
            f"model that {sparse.source} was made from"
        )


def _batch_size(encoded: Sequence[Encoded]) -> int:
    return max(1, BATCH_TOKENS // max(len(ids) for ids, _ in encoded))


def _comparison_record(
    layout: EncoderLayout, comparison: Comparison, linears: Sequence[str]
) -> dict[str, Any]:
    distances = zip(comparison.cosine, comparison.euclidean, strict=True)
    return {
        "texts": comparison.texts,
        "tokens": comparison.tokens,
        "cls_distance": [
            {"layer": layer, "cosine": cosine, "relative_euclidean": euclidean}
            for layer, (cosine, euclidean) in enumerate(distances)
        ],
        "reconstruction": [
            _linear_record(layout, name, comparison.squared_errors.get(name)) for name in linears
        ],
    }


def _linear_record(layout: EncoderLayout, name: str, sums: tuple[float, float] | None) -> dict[str, Any]:
    """A linear layer's relative squared error `||Y - Yh||^2 / ||Y||^2`, or why it has none."""
    place = layout.place_of(name)
    if place is None:
        raise ValueError(f"{name} is no linear layer of an encoder")
    skipped = WIDTH_DIFFERS if sums is None else DENSE_IS_ZERO if not sums[1] else None
    return {
        "name": name,
        "layer": place[0] + 1,
        "matrix": layout.matrix_title(place[1]),
        "relative_error": sums[0] / sums[1] if sums is not None and sums[1] else None,
        "skipped": skipped,
    }


def _maps_record(
    dense: Classifier, sparse: Classifier, sentence: TextData, layer: int, max_length: int
) -> dict[str, Any]:
    """Attention of both models for one sentence, rows of `attention_map`, and its tokens."""
    [encoded] = encode(dense.tokenizer, sentence, max_length)
    maps = (attention_map(one.model, encoded, layer) for one in (dense, sparse))
    rows_dense, rows_sparse = (
        [[round(share, ATTENTION_DIGITS) for share in row] for row in map_.tolist()] for map_ in maps
    )
    tokens = dense.tokenizer.convert_ids_to_tokens(encoded[0])
    return {"tokens": tokens, "dense": rows_dense, "sparse": rows_sparse}
