"""Workloads of the user, named by the function that makes them."""
