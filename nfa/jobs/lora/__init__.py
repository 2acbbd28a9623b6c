"""Fine-tunings of language models and the steps of the SVD-LoRA experiment."""
