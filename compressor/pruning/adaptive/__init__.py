"""Algorithm 1: adaptive knowledge-retention pruning (Li et al., EMNLP 2023, arXiv 2310.13191)."""
