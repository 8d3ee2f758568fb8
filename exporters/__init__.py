"""From a pruned classifier to the files that production loads."""
