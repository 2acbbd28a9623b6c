"""Pure functions from measured matrices to a Result of scalars, arrays and conventions."""
