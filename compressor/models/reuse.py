"""What decides a stage's result, and what does not: the one rule by which finished work is taken again.

What decides it: the content of the model, of the data and of every resource that an option names, the
options, the seed, the type of the device, the versions of the packages that compute, our code (see
`code_version`), and the packages that register what an option names. Names of files and folders do not. Nor
do the machine, its kernel, its cores and the number of threads: float sums may differ in their last bits
with these, so they are recorded, and a stage that goes on elsewhere says so, but hours of work are not
thrown away for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from compressor.errors import UserError
from compressor.models.artifact_files import ARTIFACT_GRAPH, ARTIFACT_IR, ARTIFACT_IR_WEIGHTS
from compressor.models.classifier import CONTENT, WEIGHTS, files_content, is_directory, model_content
from compressor.models.manifest import read_runtime
from compressor.options import (
    RUNTIME_REGISTRY,
    AttackConfig,
    Registry,
    ResourcesConfig,
    RunConfig,
    Section,
    SeveralOf,
    SubstitutionResourcesConfig,
    attack_named,
    shown,
)
from compressor.system.assets import ENCODER_PACKAGE, QUOTES_PACKAGE, THESAURUS_FILE, asset_file
from compressor.system.code_version import code_version, plugin_version
from compressor.system.environment import package_versions, resolve_device
from compressor.system.files import json_sha256, sha256_of
from compressor.system.hub import cached_file

Kind: TypeAlias = Literal["finetune", "soup", "prune", "export", "attack", "validate", "search"]

MODULES: dict[Kind, str] = {
    "finetune": "compressor.training.finetune_stage",
    "soup": "compressor.training.soup_stage",
    "prune": "compressor.pruning.interface",
    "export": "exporters.stage",
    "attack": "compressor.attacks.stage",
    "validate": "compressor.validation.stage",
    "search": "compressor.search.stage",
}
# Of the others the result is read by programs; pages that people read of them may look older.
SHOWN: frozenset[Kind] = frozenset({"validate"})
# The last two carry the packaged encoder and thesaurus.
TRAINING = ("torch", "transformers", "tokenizers", "numpy", ENCODER_PACKAGE, QUOTES_PACKAGE)
GRAPHS = ("onnx", "onnxruntime", "onnxruntime-gpu", "openvino")
ATTACKING = ("textattack", "textblob", "nltk", "onnxruntime", "onnxruntime-gpu")
PACKAGES: dict[Kind, tuple[str, ...]] = {
    "finetune": TRAINING,
    "soup": (*TRAINING, *ATTACKING),
    "prune": TRAINING,
    "export": (*TRAINING, *GRAPHS),
    "attack": (*TRAINING, *ATTACKING),
    "validate": (*TRAINING, *GRAPHS, *ATTACKING),
    "search": (*TRAINING, *GRAPHS, *ATTACKING),
}
RESOURCES = frozenset(
    {
        *ResourcesConfig.model_fields,
        *SubstitutionResourcesConfig.model_fields,
        "latency_table",
        "latency_tables",
    }
)
# Options that name a place, whose content counts in place of the name.
PLACES = RESOURCES | {"baseline"}
# Options that share out the work, whoever does it.
SHARES = frozenset({"processes"})


def decides(
    kind: Kind, run: RunConfig, options: Mapping[str, Section | None], **inputs: Any
) -> dict[str, Any]:
    """All that decides the result of a stage, ready for JSON.

    Args:
        options: the stage's sections by their names; those that are None are left out.
        inputs: contents of what it reads, and what else decides it.

    Raises:
        UserError: the device is not there, or a resource cannot be read.
    """
    given = {name: section for name, section in options.items() if section is not None}
    resources: dict[str, Any] = {}
    registered: dict[str, Any] = {}
    for name, section in given.items():
        resources |= resource_contents(name, section)
        registered |= registered_versions(name, section)
    return {
        "code": code_version(MODULES[kind], is_shown=kind in SHOWN),
        "packages": package_versions(PACKAGES[kind]),
        "run": {"seed": run.seed, "device": resolve_device(run.device).type},
        **{name: deciding(section.model_dump(mode="json")) for name, section in given.items()},
        "resources": resources,
        "registered": registered,
        **inputs,
    }


def deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options ready for JSON, at any depth without those that name a place or share out the work."""
    return {
        name: deciding(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if name not in PLACES | SHARES
    }


def resource_contents(name: str, section: Section) -> dict[str, dict[str, str]]:
    """What changes if a resource of a section does, at any depth, by the option that names it.

    Args:
        name: of the section.

    Raises:
        UserError: a file cannot be read, or a package is missing.
    """
    found: dict[str, dict[str, str]] = {}
    for key in type(section).model_fields:
        value, option = getattr(section, key), f"{name}.{key}"
        if isinstance(value, Section):
            found |= resource_contents(option, value)
        elif key in RESOURCES and value and _is_used(section, key):
            places = value if isinstance(value, list) else [value]
            contents = [_place_content(option, place) for place in places]
            known = [content for content in contents if content is not None]
            if known:
                found[option] = {"content": known[0] if len(known) == 1 else json_sha256(known)}
    if isinstance(section, AttackConfig) and "synonyms" in _needs(section) and not section.wordnet:
        found[f"{name}.wordnet"] = {"content": sha256_of(asset_file(QUOTES_PACKAGE, THESAURUS_FILE))}
    return found


def registered_versions(name: str, section: Section) -> dict[str, dict[str, str]]:
    """What changes if a package does that registers what an option of a section names, at any depth.

    Args:
        name: of the section.

    Raises:
        UserError: the package's sources are missing.
    """
    found: dict[str, dict[str, str]] = {}
    for key, field in type(section).model_fields.items():
        value, option = getattr(section, key), f"{name}.{key}"
        if isinstance(value, Section):
            found |= registered_versions(option, value)
        for entry in field.metadata:
            if isinstance(entry, Registry):
                found |= _plugin_of(entry, value, option)
            elif isinstance(entry, SeveralOf):
                names = value.split(",")
                for one in names:
                    found |= _plugin_of(entry.registry, one, option if len(names) == 1 else f"{option}.{one}")
    return found


def _plugin_of(registry: Registry, name: str, option: str) -> dict[str, dict[str, str]]:
    """The version of the package that registers a name, by its option; none of what is built in."""
    entry = registry.entry_point(name)
    return {} if entry is None else {option: plugin_version(entry)}


def _is_used(section: Section, key: str) -> bool:
    """Whether a resource counts: all that are given do, but for the one that has a default."""
    return key != "masked_language_model" or (isinstance(section, AttackConfig) and key in _needs(section))


def _needs(section: AttackConfig) -> frozenset[str]:
    return frozenset().union(*(attack_named(name).needs for name in section.attacks))


def _place_content(option: str, source: str) -> str | None:
    """What changes if a file or a directory does, or of a hub id its commit; None if nothing is there."""
    path = Path(source)
    try:
        if path.is_file():
            return sha256_of(path)
        if path.is_dir():
            return _directory_content(path)
    except OSError as error:
        raise UserError(f"{option}: {shown(source)}: cannot be read: {error.strerror}") from error
    return _hub_content(source) if option.endswith("masked_language_model") else None


def _directory_content(path: Path) -> str:
    """A SHA-256 over a directory's files; of a model over those that it is loaded from."""
    patterns = CONTENT if (path / "config.json").is_file() else ("*",)
    return files_content(path, patterns)


def _hub_content(source: str) -> str:
    """The commit of a hub id as the cache has it; before it is there the id."""
    cached = cached_file(source, WEIGHTS)
    return source if cached is None else f"commit {cached.parent.name}"


def predictor_content(source: str) -> str:
    """What changes if a classifier or an artifact does.

    Raises:
        UserError: it is neither.
    """
    path = Path(source)
    if (path / ARTIFACT_GRAPH).is_file():
        content = files_content(path, (*CONTENT, ARTIFACT_GRAPH, ARTIFACT_IR, ARTIFACT_IR_WEIGHTS))
        runtime = RUNTIME_REGISTRY.entry_point(read_runtime(path))
        return content if runtime is None else json_sha256({"files": content, **plugin_version(runtime)})
    is_directory(source)
    return model_content(source)
