"""Figures of fine-tunings."""
