"""Whole jobs, from configuration to a finished run; entry points and sweeps call them."""
