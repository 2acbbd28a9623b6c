"""Conformers that decode the envelope of heard speech from EEG."""
