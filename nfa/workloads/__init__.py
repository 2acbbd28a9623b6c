"""Model families: everything the studies need to know of a model, example by example."""
