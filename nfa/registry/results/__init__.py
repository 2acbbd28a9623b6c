"""The values of stored runs, to be read and drawn in a notebook."""
