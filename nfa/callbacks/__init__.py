"""Callbacks for training frameworks that call `nfa.watch`."""
