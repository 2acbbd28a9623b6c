"""Parameter searches."""
