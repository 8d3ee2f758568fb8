"""Every option of every stage: its name, default, bounds and meaning, in one place.

A recipe (YAML) is made of these sections, and `compressor.flags` makes the command line's flags from
them. Light on imports, since `compress --help` loads it.
"""

from compressor.options.export import ExportConfig, TritonConfig
from compressor.options.pruning import (
    AdaptiveConfig,
    AlgorithmName,
    CandidateRatios,
    CandidateSchedule,
    CandidateScore,
    ClassMetricName,
    CorrelationName,
    MetricName,
    PruneConfig,
    RandomizedConfig,
    Saliency,
    SamplingSchedule,
    Scope,
)
from compressor.options.robustness import (
    ONE_WORD_AFTER_THE_OTHER,
    AttackConfig,
    AttackName,
    PerturbationName,
    PerturbConfig,
    ResourcesConfig,
    RobustnessFigure,
    SoupConfig,
    SynonymsConfig,
)
from compressor.options.run import ColumnsConfig, DataConfig, DeviceName, RunConfig
from compressor.options.section import Section, describe, fields_of, keys_of, shown
from compressor.options.training import (
    AdversarialConfig,
    BatchSize,
    FinetuneConfig,
    OptimizerName,
    PerturbationConfig,
    Precision,
    SubstitutionChoice,
    SubstitutionConfig,
    TaskName,
    TrainingConfig,
    WarmupShare,
)
from compressor.options.validation import KnowledgeConfig, ValidateConfig

__all__ = [
    "ONE_WORD_AFTER_THE_OTHER",
    "AdaptiveConfig",
    "AdversarialConfig",
    "AlgorithmName",
    "AttackConfig",
    "AttackName",
    "BatchSize",
    "CandidateRatios",
    "CandidateSchedule",
    "CandidateScore",
    "ClassMetricName",
    "ColumnsConfig",
    "CorrelationName",
    "DataConfig",
    "DeviceName",
    "ExportConfig",
    "FinetuneConfig",
    "KnowledgeConfig",
    "MetricName",
    "OptimizerName",
    "PerturbConfig",
    "PerturbationConfig",
    "PerturbationName",
    "Precision",
    "PruneConfig",
    "RandomizedConfig",
    "ResourcesConfig",
    "RobustnessFigure",
    "RunConfig",
    "Saliency",
    "SamplingSchedule",
    "Scope",
    "Section",
    "SoupConfig",
    "SubstitutionChoice",
    "SubstitutionConfig",
    "SynonymsConfig",
    "TaskName",
    "TrainingConfig",
    "TritonConfig",
    "ValidateConfig",
    "WarmupShare",
    "describe",
    "fields_of",
    "keys_of",
    "shown",
]
