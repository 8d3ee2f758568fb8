"""Algorithm 2: randomized mask generation and selection (Li et al., Findings of EMNLP 2023, 2310.13183)."""
