"""Records folded batch by batch into one tensor a site."""
