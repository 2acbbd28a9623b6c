"""Workloads: what studies need to know of a model, example by example."""
