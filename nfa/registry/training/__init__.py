"""One tracked training, whatever is trained."""
