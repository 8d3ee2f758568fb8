"""Looking for the best artifact: what parts of a model cost on a machine."""
