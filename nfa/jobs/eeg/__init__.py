"""Trainings on EEG, their data, and the ablation of their switches."""
