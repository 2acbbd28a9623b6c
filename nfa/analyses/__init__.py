"""Studies of a model: each chooses and checks examples and sites, and then measures one model after another."""
