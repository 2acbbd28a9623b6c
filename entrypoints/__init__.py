"""One file for each MLproject entry point."""
