"""Pure tensor functions; they know nothing of models, runs or files."""
