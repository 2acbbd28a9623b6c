"""`nfa.watch` in the clothes of training frameworks."""
