"""Figures of decoders."""
