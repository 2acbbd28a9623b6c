"""One tracked training, for any workload."""
