"""Low-rank updates of language models: base models, adapters, synthesised teachers."""
