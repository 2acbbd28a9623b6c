"""The studies of a model at hand: one call each, a small table back."""
