"""Per-example losses."""
