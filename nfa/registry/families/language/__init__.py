"""Language models that are fine-tuned, by low-rank adapters or in full."""
