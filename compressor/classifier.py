"""BERT classifiers: load and save in Hugging Face's layout, safetensors only; encoder layers by name."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from compressor.errors import UserError, first_line
from compressor.labels import task_of
from compressor.options import TaskName, shown
from compressor.output import sha256_of
from compressor.weight_files import INDEX, VOCABULARIES, digest_of_files, shard_names, weight_files
from compressor.weight_files import WEIGHTS as WEIGHTS

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

Attention: TypeAlias = Literal["sdpa", "eager"]

# All that a checkpoint is loaded from; records of stages and the like may lie beside it.
CONTENT = ("*.safetensors", "*.index.json", "config.json", "vocab.txt", "tokenizer*.json", "*tokens*.json")
PICKLES = ("pytorch_model.bin", "model.ckpt", "pytorch_model.pt")


@dataclass
class Classifier:
    """A BERT classifier, or a regression with one output, in evaluation mode; with its tokenizer.

    Attributes:
        source: directory or hub id that it was loaded from.
    """

    model: BertForSequenceClassification
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
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device


def load_classifier(
    source: str, device: torch.device | str = "cpu", *, attention: Attention = "sdpa"
) -> Classifier:
    """Load a fine-tuned `BertForSequenceClassification` from a directory or the hub.

    Args:
        attention: PyTorch's fused kernel, or "eager" with every operation its own.

    Raises:
        UserError: missing, no BERT classifier, pickle only, incomplete, or with weights that are
            not finite.
    """
    config = _load_config(source)
    architectures = config.architectures or []
    if architectures != ["BertForSequenceClassification"]:
        raise UserError(
            f"{source}: is {', '.join(architectures) or 'of no known architecture'}, not a "
            f"BertForSequenceClassification; fine-tune it first with: compress finetune"
        )
    return _load(source, config, device, attention, allow_new_head=False)


def load_for_finetuning(
    source: str, label_names: Sequence[str], seed: int, device: torch.device | str = "cpu"
) -> Classifier:
    """Load any BERT checkpoint and give it a head for `label_names`, of which a regression has one.

    A head of the right size is kept; otherwise a new one is drawn with `seed`.

    Raises:
        UserError: as `load_classifier`, but an encoder without a head is welcome.
    """
    config = _load_config(source)
    config.num_labels = len(label_names)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    config.problem_type = "regression" if task_of(label_names) == "regression" else None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _load(source, config, device, "sdpa", allow_new_head=True)


def model_task(source: str) -> TaskName:
    """What a checkpoint of a directory or the hub does, by its configuration.

    Raises:
        UserError: missing, or no BERT model.
    """
    return "regression" if _load_config(source).num_labels == 1 else "classification"


def model_labels(source: str) -> list[str] | None:
    """Class names of a fine-tuned classifier, by its configuration; None of what is to be fine-tuned first.

    Raises:
        UserError: missing, or no BERT model.
    """
    config = _load_config(source)
    if config.architectures != ["BertForSequenceClassification"]:
        return None
    return [str(config.id2label[index]) for index in sorted(config.id2label)]


def _load_config(source: str) -> Any:
    """The configuration of a BERT checkpoint that has safetensors weights."""
    from transformers import AutoConfig

    is_directory(source)
    try:
        # By default it asks on a terminal whether to run a checkpoint's own code, which never runs here.
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{source}: no such directory, and no model could be loaded: {first_line(error)}"
        ) from error
    if config.model_type != "bert":
        raise UserError(f"{source}: is a {config.model_type} model; only BERT models can be used")
    return config


def is_directory(source: str) -> bool:
    """Whether `source` is a checkpoint's directory; otherwise it is a hub id.

    Raises:
        UserError: it looks like a directory and is none, or one without a checkpoint.
    """
    path = Path(source)
    looks_like_a_path = source.startswith((".", "/", "~")) or source.count("/") > 1
    try:
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise UserError(f"{source}: has no config.json; it is no Hugging Face model directory")
            _check_weight_files(path)
            return True
        if path.exists() or looks_like_a_path:
            raise UserError(f"{source}: no such model directory")
    except OSError as error:
        raise UserError(f"{shown(source)}: no such model directory: {error.strerror}") from error
    return False


def _check_weight_files(path: Path) -> None:
    if any(path.glob("*.safetensors")):
        return
    pickle = next((name for name in PICKLES if (path / name).is_file()), None)
    if pickle:
        raise UserError(
            f"{path / pickle}: is a pickle, which can run code when it is loaded; where you trust it, "
            f'convert it with: python -c "from transformers import AutoModelForSequenceClassification as M; '
            f"M.from_pretrained('{path}').save_pretrained('{path}-safetensors')\""
        )
    raise UserError(f"{path}: has no {WEIGHTS}")


def _load(
    source: str, config: Any, device: torch.device | str, attention: Attention, *, allow_new_head: bool
) -> Classifier:
    from safetensors import SafetensorError
    from transformers import BertForSequenceClassification

    from compressor.structure import classifier_class

    try:
        with quiet_transformers():
            model, report = classifier_class(config).from_pretrained(
                source,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                attn_implementation=attention,
                dtype=torch.float32,
            )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{source}: cannot be loaded: {first_line(error)}") from error
    # A class of its own would be named in the configuration when the model is saved.
    model.__class__ = BertForSequenceClassification
    absent = sorted(str(key) for key in report["missing_keys"])
    # Names up to transformers 4.57, and tuples of a name and two shapes in other versions.
    absent += sorted(key if isinstance(key, str) else str(key[0]) for key in report["mismatched_keys"])
    if allow_new_head:
        absent = [name for name in absent if not name.startswith(("classifier.", "bert.pooler."))]
    if absent:
        raise UserError(
            f"{source}: {len(absent)} weights are missing or of another shape ({', '.join(absent[:3])}); "
            f"it is no complete BERT classifier"
        )
    surplus = sorted(str(key) for key in report["unexpected_keys"] if "encoder.layer." in str(key))
    if surplus:
        raise UserError(
            f"{source}: holds {len(surplus)} encoder weights that its config.json has no place for "
            f"({', '.join(surplus[:3])}); the two do not belong together"
        )
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(f"{source}: weight {name} holds NaN or infinity; the checkpoint is broken")
    model.eval().to(device)
    return Classifier(model, load_tokenizer(source), source)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory, a classifier's or an artifact's, or of a hub id.

    Raises:
        UserError: it is missing, broken, or cannot pad.
    """
    from transformers import AutoTokenizer

    path = Path(source)
    problem = f"{source}: the tokenizer (tokenizer.json, tokenizer_config.json) cannot be loaded"
    way_out = "restore the files that were saved with the model"
    # Transformers 5 would make an empty tokenizer.
    if path.is_dir() and not any((path / name).is_file() for name in VOCABULARIES):
        raise UserError(f"{problem}: there is no {' and no '.join(VOCABULARIES)}; {way_out}")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain exceptions
        raise UserError(f"{problem}: {first_line(error)}; {way_out}") from error
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"{source}: the tokenizer has no token to pad with; set pad_token in tokenizer_config.json"
        )
    found: PreTrainedTokenizerBase = tokenizer
    return found


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence loading reports: what they say is checked above and raised as an error."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def save_classifier(classifier: Classifier, directory: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer."""
    classifier.model.save_pretrained(directory)
    classifier.tokenizer.save_pretrained(directory)


def weights_fingerprint(source: str) -> str | None:
    """SHA-256 of the weights of a model directory, or of a hub id as the cache has it; None without any.

    Of shards see `digest_of_files`.
    """
    return digest_of_files(weight_files(Path(source)) or _cached_weights(source))


def _cached_weights(source: str) -> list[Path]:
    """The weights of a hub id that the cache has whole."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    def cached(name: str) -> list[Path]:
        found = try_to_load_from_cache(source, name)
        return [Path(found)] if isinstance(found, str) else []

    try:
        whole = cached(WEIGHTS)
        if whole or not (index := cached(INDEX)):
            return whole
        shards = [cached(name) for name in shard_names(index[0])]
    except HFValidationError:
        # A path; nothing else is to be found by it.
        return []
    return [file for found in shards for file in found] if all(shards) else []


def model_content(source: str) -> str:
    """What changes if a checkpoint does: a SHA-256 over its files, or the commit of a hub id.

    Raises:
        UserError: missing, no checkpoint, or pickle only.
    """
    if not is_directory(source):
        return f"commit {_load_config(source)._commit_hash}"
    return files_content(Path(source), CONTENT)


def files_content(folder: Path, patterns: Sequence[str]) -> str:
    """A SHA-256 over the names and contents of the files in a folder that match one of the patterns."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    lines = [f"{sha256_of(file)}  {file.name}\n" for file in files]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def weights_bytes(classifier: Classifier) -> int:
    """Size of the weights as stored, in bytes."""
    return sum(p.numel() * p.element_size() for p in classifier.model.parameters())


def linear_at(module: nn.Module, name: str) -> nn.Linear:
    """The linear layer of that name below `module`."""
    linear = module.get_submodule(name)
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"{name} is a {type(linear).__name__}, not a linear layer")
    return linear


def encoder_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that are pruned, by name, in the order in which data flows.

    They are the six matrices of each encoder layer: query, key, value, attention output,
    intermediate and output. Embeddings, pooler and classifier are never pruned.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".encoder.layer." in f".{name}"
    }


def sparsity_of(weights: Mapping[str, Tensor]) -> float:
    """Share of zeros over all of `weights`."""
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    return zeros / sum(weight.numel() for weight in weights.values())


def encoder_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weight of each pruned layer, `(out_features, in_features)`, by the layer's name."""
    return {name: linear.weight.detach() for name, linear in encoder_linears(model).items()}
