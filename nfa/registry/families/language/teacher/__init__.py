"""Updates of a base model, and the factors that adapters start from."""
