"""Pure functions from measured matrices to a result of scalars, arrays and conventions."""
