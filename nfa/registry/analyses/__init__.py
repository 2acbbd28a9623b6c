"""Analyses of stored runs, tracked as runs of their own."""
