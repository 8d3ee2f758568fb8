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


def prune(directory, texts, pattern, config=QUICK, seed=0, walk=FEW):
    """The classifier, pruned, and the result."""
    classifier = load_classifier(str(directory))
    own = walk.model_copy(update={"algorithm": "randomized", "randomized": config})
    job = PruningJob(pattern, own, 32, seed)
    return classifier, prune_classifier(classifier, texts, job, SilentProgress())
