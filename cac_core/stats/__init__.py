"""Statistics of agreement and outcome."""
