"""Trainings of classifiers, the demo, and old checkpoints made runs."""
