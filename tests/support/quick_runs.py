"""Randomized pruning of seconds, for tests."""

from compressor.models.classifier import load_classifier
from compressor.options import AdaptiveConfig, PruneConfig, RandomizedConfig
from compressor.pruning.interface import PruningJob, prune_classifier
from compressor.system.console import SilentProgress

QUICK = RandomizedConfig(
    steps=2, candidates=2, early_steps=1, recovery_steps=3, holdout_examples=32, batch_size=16
)
# A walk of seconds.
FEW = PruneConfig(calibration_examples=16, adaptive=AdaptiveConfig(iterations=3))


def with_pattern(config, pattern):
    """The prune section, for another pattern."""
    scope = getattr(pattern, "scope", None)
    return config.model_copy(update={"pattern": str(pattern), "sparsity": pattern.sparsity, "scope": scope})


def prune(directory, texts, pattern, config=QUICK, seed=0, walk=FEW):
    """The classifier, pruned, and the result."""
    classifier = load_classifier(str(directory))
    own = walk.model_copy(update={"algorithm": "randomized", "randomized": config})
    job = PruningJob(with_pattern(own, pattern), 32, seed)
    return classifier, prune_classifier(classifier, texts, job, SilentProgress())
