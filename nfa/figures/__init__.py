"""Figures of study results; they see numbers, never models or runs."""
