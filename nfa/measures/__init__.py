"""Measures: each folds records, batch by batch, into one tensor per site."""
