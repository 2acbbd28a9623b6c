"""Studies of a model in your own training loop, while it trains."""

from nfa.watching.recording import Watch as Watch
