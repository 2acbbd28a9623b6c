"""The studies of a model: its examples and sites chosen and checked, measured, and summed up, model after model."""
