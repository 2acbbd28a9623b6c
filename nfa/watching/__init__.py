"""A training loop that is not ours: any study of the model in it, while it trains."""

from nfa.watching.recording import Watch as Watch
