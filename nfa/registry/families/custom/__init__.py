"""Workloads of one's own, by the name of the function that makes them."""
