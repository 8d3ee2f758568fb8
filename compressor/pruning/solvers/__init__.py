"""The mathematics of pruning one layer: functions of tensors, without files or models."""
