"""The whole experiment with adapters that start from an update's SVD."""
