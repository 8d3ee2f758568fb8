"""Dense against pruned model, layer by layer."""
