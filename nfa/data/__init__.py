"""Data sets as tensors, in their published order."""
