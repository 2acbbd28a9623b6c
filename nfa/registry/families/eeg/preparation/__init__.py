"""Recordings in the formats of amplifiers become files to train on."""
