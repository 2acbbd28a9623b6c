"""Record what happens at every named site of a model; only this package uses hooks and autograd."""
