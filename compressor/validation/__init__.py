"""Dense model against artifact: accuracy, robustness, latency, gates and the report."""
