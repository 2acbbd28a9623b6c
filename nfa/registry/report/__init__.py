"""One self-contained page about stored runs: what was trained, what was seen, and how sure that is."""
