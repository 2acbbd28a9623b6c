"""Workloads that are ready to be trained by name, one file each: copy one and change it."""
