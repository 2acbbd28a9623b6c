"""The studies of a model in a notebook: one call each, which returns a small table."""
