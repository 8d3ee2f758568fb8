"""Classifiers: load and save in Hugging Face's layout, safetensors only; encoder layers by name."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from compressor.data.labels import task_of
from compressor.errors import UserError
from compressor.models.checks import (
    CONFIG,
    SET_VALUES,
    fitted,
    key_problems,
    label_names,
    model_problems,
    pair_problems,
    raise_problems,
    tokenizer_facts,
    tokenizing_problem,
    weight_problems,
    without_heads,
)
from compressor.models.encoders.layout import EncoderLayout
from compressor.models.encoders.registry import layout_of, layout_of_type
from compressor.models.loading import (
    TOKENIZER,
    check_adapter,
    check_hub_weights,
    conversion,
    load_any_tokenizer,
    load_config,
    load_weights,
    model_commit,
    read_config,
    reason_of,
)
from compressor.models.structure import classifier_class, cut_padded_layers, with_padded_layers
from compressor.models.transformers_versions import (
    TOKENIZER_CONFIG,
    has_fused_attention,
    names_of_mismatched,
    save_tokenizer,
)
from compressor.models.weight_files import (
    INDEX,
    PICKLES,
    VOCABULARIES,
    digest_of_files,
    shard_names,
    weight_files,
)
from compressor.models.weight_files import WEIGHTS as WEIGHTS
from compressor.options import TaskName, shown
from compressor.system.files import read_json, sha256_of, write_json
from compressor.system.hub import cached_file, is_hub_id, network_or, quiet, split_revision

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Attention: TypeAlias = Literal["sdpa", "eager"]

# All that a checkpoint is loaded from; records of stages and the like may lie beside it.
CONTENT = (
    "*.safetensors",
    "*.index.json",
    "config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer*.json",
    "*tokens*.json",
)


@dataclass
class Classifier:
    """A classifier, or a regression with one output, in evaluation mode; with its tokenizer.

    Attributes:
        source: directory or hub id that it was loaded from.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str

    @property
    def label_names(self) -> list[str]:
        """Name of each class index."""
        names = self.model.config.id2label
        return [str(names[index]) for index in range(len(names))]

    @property
    def task(self) -> TaskName:
        """Whether it answers with classes or with a number."""
        return task_of(self.label_names)

    @property
    def layout(self) -> EncoderLayout:
        """How models of its family are built."""
        return layout_of(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device


def load_classifier(
    source: str,
    device: torch.device | str = "cpu",
    *,
    attention: Attention = "sdpa",
    lengths: Mapping[str, int | None] | None = None,
) -> Classifier:
    """Load a fine-tuned text classifier from a directory or the hub.

    Args:
        attention: PyTorch's fused kernel, or "eager" with every operation its own.
        lengths: tokens of the inputs that it is to take, by the name of their option.

    Raises:
        UserError: missing, no classifier of a known family, pickle only, incomplete, with weights that are
            not finite, or with a configuration or tokenizer that the program cannot work with to the end; all
            that is wrong with these is named at once, before weights are read.
    """
    content, tokenizer = check_checkpoint(source, lengths=lengths)
    return _load(source, content, tokenizer, device, attention, allow_new_head=False)


def load_for_finetuning(
    source: str,
    label_names: Sequence[str],
    seed: int,
    device: torch.device | str = "cpu",
    *,
    lengths: Mapping[str, int | None] | None = None,
    has_pairs: bool = False,
) -> Classifier:
    """Load a checkpoint and give it a head for `label_names`, of which a regression has one.

    A head of the right size is kept; otherwise a new one is drawn with `seed`. What the checkpoint's
    configuration says of labels and of its task is replaced.

    Args:
        lengths: tokens of the inputs that it is to take, by the name of their option.
        has_pairs: whether it is to take two texts at once.

    Raises:
        UserError: as `load_classifier`, but an encoder without a head is welcome.
    """
    content, tokenizer = check_checkpoint(source, lengths=lengths, has_pairs=has_pairs, for_finetuning=True)
    content |= {
        "id2label": dict(enumerate(label_names)),
        "problem_type": "regression" if task_of(label_names) == "regression" else None,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _load(source, content, tokenizer, device, "sdpa", allow_new_head=True)


def check_checkpoint(
    source: str,
    *,
    lengths: Mapping[str, int | None] | None = None,
    has_pairs: bool = False,
    for_finetuning: bool = False,
) -> tuple[dict[str, Any], PreTrainedTokenizerBase]:
    """Check all that is known of a checkpoint before its weights are read.

    Returns the content of its configuration, and its tokenizer.

    Args:
        lengths: tokens of the inputs that it is to take, by the name of their option.
        has_pairs: whether it is to take two texts at once.
        for_finetuning: whether its head will be replaced.

    Raises:
        UserError: it cannot be used; names all that is wrong.
    """
    is_directory(source)
    content = read_config(source)
    check_hub_weights(source)
    if for_finetuning:
        content = without_heads(content)
    try:
        tokenizer = load_tokenizer(source)
        facts = tokenizer_facts(tokenizer)
    except UserError as error:
        # What the configuration says may be the reason.
        raise_problems(source, key_problems(content))
        raise error
    problems = model_problems(content, facts, lengths=lengths, has_pairs=has_pairs)
    raise_problems(source, [*problems, *weight_problems(*_stored_weights(Path(source)))])
    return content, tokenizer


def check_pairs(source: str, config: Any, tokenizer: PreTrainedTokenizerBase, has_pairs: bool) -> None:
    """Raise a `UserError` if there are pairs and a model that is loaded cannot take them.

    Args:
        source: of the model.
        config: the model's configuration.
    """
    if has_pairs:
        raise_problems(source, pair_problems(config.to_dict(), tokenizer_facts(tokenizer)))


def model_task(source: str) -> TaskName:
    """What a checkpoint of a directory or the hub does, by its configuration.

    Raises:
        UserError: missing, or no model of a known family.
    """
    is_directory(source)
    content = read_config(source)
    raise_problems(source, key_problems(content))
    return task_of(label_names(content))


def model_labels(source: str) -> list[str] | None:
    """Class names of a fine-tuned classifier, by its configuration; None of what is to be fine-tuned first.

    Raises:
        UserError: missing, or no model of a known family.
    """
    is_directory(source)
    content = read_config(source)
    raise_problems(source, key_problems(content))
    layout = layout_of_type(content["model_type"])
    if content.get("architectures") not in (None, [layout.classifier_name]):
        return None
    return label_names(content)


def _stored_weights(directory: Path) -> tuple[dict[str, str], set[str]]:
    """What the safetensors files of a directory say of themselves; broken files say nothing.

    Returns:
        the type of each weight, as safetensors names it (F32, I8, ...), and the frameworks that wrote them.
    """
    types: dict[str, str] = {}
    formats: set[str] = set()
    for path in sorted(directory.glob("*.safetensors")) if directory.is_dir() else ():
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = stream.read(min(size, path.stat().st_size))
        try:
            entries = json.loads(header)
            formats.add(str(entries.pop("__metadata__", {}).get("format", "pt")))
            types |= {name: str(entry["dtype"]) for name, entry in entries.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            # Broken; what reads the weights says how.
            continue
    return types, formats


def is_directory(source: str) -> bool:
    """Whether `source` is a checkpoint's directory; otherwise it is a hub id.

    Raises:
        UserError: it looks like a directory and is none, or one without a checkpoint or with an adapter; it
            is neither a directory nor what a hub id may be.
    """
    path = Path(source)
    name, _ = split_revision(source)
    looks_like_a_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    try:
        if source and path.is_dir():
            check_adapter(source)
            if not (path / "config.json").is_file():
                raise UserError(f"{source}: has no config.json; it is no Hugging Face model directory")
            _check_weight_files(path)
            return True
        if path.exists() or looks_like_a_path:
            raise UserError(f"{source}: no such model directory")
    except OSError as error:
        raise UserError(f"{shown(source)}: no such model directory: {error.strerror}") from error
    if not is_hub_id(source):
        raise UserError(f"{shown(source)}: no such model directory, and no id of a hub's model")
    return False


def _check_weight_files(path: Path) -> None:
    if any(path.glob("*.safetensors")):
        return
    pickle = next((name for name in PICKLES if (path / name).is_file()), None)
    if pickle:
        raise UserError(
            f"{path / pickle}: is a pickle, which can run code when it is loaded; where you trust it, "
            f"convert it with: {conversion(str(path))}"
        )
    raise UserError(f"{path}: has no {WEIGHTS}")


def _load(
    source: str,
    content: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device | str,
    attention: Attention,
    *,
    allow_new_head: bool,
) -> Classifier:
    from safetensors import SafetensorError

    layout = layout_of_type(content["model_type"])
    config = load_config(fitted(content, int(tokenizer.pad_token_id)))
    try:
        with quiet():
            model, report = load_weights(
                classifier_class(config),
                source,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                attn_implementation=attention if has_fused_attention(layout.classifier_class()) else "eager",
            )
    except network_or(
        OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError, ImportError, SafetensorError
    ) as error:
        raise UserError(f"{source}: cannot be loaded: {reason_of(source, error)}") from error
    # A class of its own would be named in the configuration when the model is saved.
    model.__class__ = layout.classifier_class()
    _check_keys(source, content, report, allow_new_head=allow_new_head)
    _check_finite(source, model)
    _cut_padded_layers(source, model)
    model.eval().to(device)
    return Classifier(model, tokenizer, source)


def _check_keys(
    source: str, content: Mapping[str, Any], report: Mapping[str, Any], *, allow_new_head: bool
) -> None:
    """Check that a source holds the weights that its configuration has places for, and no others.

    Args:
        content: of the configuration.
        report: what transformers reports of the loading.

    Raises:
        UserError: weights are absent, of another shape, or have no place.
    """
    layout = layout_of_type(content["model_type"])
    absent = sorted(str(key) for key in report["missing_keys"])
    absent += names_of_mismatched(report["mismatched_keys"])
    if allow_new_head:
        absent = [name for name in absent if not layout.is_head_weight(name)]
    if absent and all(layout.is_head_weight(name) for name in absent):
        named = "" if content.get("architectures") else f" (and {source}/config.json names no architectures)"
        raise UserError(
            f"{source}: {len(absent)} weights are missing or of another shape ({', '.join(absent[:3])}): it "
            f"has no head of a classifier{named}; fine-tune it first with: compress finetune"
        )
    if absent:
        raise UserError(
            f"{source}: {len(absent)} weights are missing or of another shape ({', '.join(absent[:3])}); "
            f"it is no complete {layout.title} classifier"
        )
    raise_problems(source, weight_problems({str(key): "F32" for key in report["unexpected_keys"]}))
    surplus = sorted(str(key) for key in report["unexpected_keys"] if layout.is_own_weight(str(key)))
    if surplus:
        raise UserError(
            f"{source}: holds {len(surplus)} weights that its config.json has no place for "
            f"({', '.join(surplus[:3])}); the two do not belong together"
        )


def _check_finite(source: str, model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(f"{source}: weight {name} holds NaN or infinity; the checkpoint is broken")


def _cut_padded_layers(source: str, model: PreTrainedModel) -> None:
    """Cut the zeros of a checkpoint out of a model; a `UserError` names the source."""
    try:
        cut_padded_layers(model)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def copied_classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lengths: Mapping[str, int | None] | None = None,
    has_pairs: bool = False,
) -> Classifier:
    """Copy a model that is in memory into a classifier of its own, after the checks of a loaded one.

    The copy is in float32 and in evaluation mode, on the device of the model, which stays as it is.

    Args:
        lengths: tokens of the inputs that it is to take, by the name of their option.
        has_pairs: whether it is to take two texts at once.

    Raises:
        UserError: as `load_classifier`, of what is not about files.
    """
    source = "model"
    layout = layout_of(model)
    if not isinstance(model, layout.classifier_class()):
        raise UserError(f"{source}: is a {type(model).__name__}, not a {layout.classifier_name}")
    content = json.loads(model.config.to_json_string(use_diff=False))
    facts = tokenizer_facts(tokenizer)
    raise_problems(source, list(model_problems(content, facts, lengths=lengths, has_pairs=has_pairs)))
    _check_finite(source, model)
    own = copy.deepcopy(model).float().eval()
    for name, value in SET_VALUES.items():
        setattr(own.config, name, value)
    _cut_padded_layers(source, own)
    return Classifier(own, tokenizer, source)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory, a classifier's or an artifact's, or of a hub id.

    Raises:
        UserError: it is missing, broken, or cannot pad.
    """
    path = Path(source)
    problem = f"{source}: the tokenizer (tokenizer.json, tokenizer_config.json) cannot be loaded"
    way_out = "restore the files that were saved with the model"
    # Transformers 5 would make an empty tokenizer.
    if path.is_dir() and not any((path / name).is_file() for name in VOCABULARIES):
        raise UserError(f"{problem}: there is no {' and no '.join(VOCABULARIES)}; {way_out}")
    try:
        with quiet():
            tokenizer = load_any_tokenizer(source)
    except UserError:
        raise
    except Exception as error:  # the tokenizers library raises plain exceptions
        hint = f"; {way_out}" if path.is_dir() else ""
        raise UserError(f"{problem}: {reason_of(source, error)}{hint}") from error
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"{source}: the tokenizer has no token to pad with; set pad_token in tokenizer_config.json"
        )
    reason = tokenizing_problem(tokenizer)
    if reason:
        raise UserError(f"{source}: the tokenizer cannot tokenize: {reason}; {way_out}")
    found: PreTrainedTokenizerBase = tokenizer
    return found


def rewritten_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    content: Mapping[str, Any],
    rewritten: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> PreTrainedTokenizerBase:
    """Return a tokenizer with another `tokenizer.json`, as if it had been loaded from such files.

    Args:
        content: of that file.
        rewritten: makes the content of `tokenizer_config.json` of what is written for the tokenizer.

    Raises:
        UserError: it cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        save_tokenizer(tokenizer, directory)
        config = rewritten(read_json(directory / TOKENIZER_CONFIG))
        # Others hold the tokenizer as it was.
        for file in directory.iterdir():
            file.unlink()
        write_json(directory / TOKENIZER_CONFIG, config)
        write_json(directory / TOKENIZER, content)
        return load_tokenizer(folder)


def save_classifier(classifier: Classifier, directory: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer; heads and neurons that are gone are zeros.

    Every version of transformers reads it.
    """
    with quiet():
        # Version 5 shows a bar of its own.
        with_padded_layers(classifier.model).save_pretrained(directory)
    complete_config(classifier.layout, directory)
    save_tokenizer(classifier.tokenizer, directory)


def complete_config(layout: EncoderLayout, directory: Path) -> None:
    """Write into the `config.json` of a directory what other versions of transformers read of the family."""
    content = read_json(directory / CONFIG)
    stored = layout.stored_config(content)
    if stored != content:
        write_json(directory / CONFIG, stored)


def weights_fingerprint(source: str) -> str | None:
    """SHA-256 of the weights of a model directory, or of a hub id as the cache has it; None without any.

    Of shards see `digest_of_files`.
    """
    return digest_of_files(weight_files(Path(source)) or _cached_weights(source))


def _cached_weights(source: str) -> list[Path]:
    """The weights of a hub id that the cache has whole."""
    whole = cached_file(source, WEIGHTS)
    if whole is not None:
        return [whole]
    index = cached_file(source, INDEX)
    if index is None:
        return []
    shards = [cached_file(source, name) for name in shard_names(index)]
    found = [file for file in shards if file is not None]
    return found if len(found) == len(shards) else []


def model_content(source: str) -> str:
    """What changes if a checkpoint does: a SHA-256 over its files, or the commit of a hub id.

    Raises:
        UserError: missing, no checkpoint, or pickle only.
    """
    if not is_directory(source):
        return f"commit {model_commit(source)}"
    return files_content(Path(source), CONTENT)


def files_content(folder: Path, patterns: Sequence[str]) -> str:
    """A SHA-256 over the names and contents of the files in a folder that match one of the patterns."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    lines = [f"{sha256_of(file)}  {file.name}\n" for file in files]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def weights_bytes(classifier: Classifier) -> int:
    """Size of the weights as stored, in bytes."""
    return sum(p.numel() * p.element_size() for p in classifier.model.parameters())


def encoder_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers that are pruned, by name, in the order in which data flows.

    They are query, key, value and output of the attention, and both matrices of the feed-forward part, of
    each encoder layer; some families have several of them in one. Embeddings, pooler and classifier are never
    pruned. Those of a block that an export leaves out (`exporters/shrink.py`) have no weights and are not
    among them.
    """
    layout = layout_of(model)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.numel() and layout.is_pruned(name)
    }


def sparsity_of(weights: Mapping[str, Tensor]) -> float:
    """Share of zeros over all of `weights`; 0 where there are none."""
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    return zeros / max(1, sum(weight.numel() for weight in weights.values()))


def encoder_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Weight of each pruned layer, `(out_features, in_features)`, by the layer's name."""
    return {name: linear.weight.detach() for name, linear in encoder_linears(model).items()}
