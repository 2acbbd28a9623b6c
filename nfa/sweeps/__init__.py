"""Searches for parameters: studies whose trials are tracked trainings."""
