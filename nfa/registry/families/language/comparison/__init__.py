"""Fine-tunings that start differently, compared seed by seed."""
