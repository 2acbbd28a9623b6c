"""Base models: where they are found, and how they are read."""
