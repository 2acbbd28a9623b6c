"""Figures of study results; they receive numbers, never models or runs."""
