"""From a model and a batch to records of every named site; the only room that touches hooks and autograd."""
