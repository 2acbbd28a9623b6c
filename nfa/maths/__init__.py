"""Pure functions of tensors and arrays; they know nothing of models, runs or files."""
