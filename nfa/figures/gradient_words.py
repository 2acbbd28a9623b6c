"""What gradients are measured, in the words of figures."""

from collections.abc import Mapping
from typing import Any

from nfa.plain_text import counted, loss_in_words

SPOKEN = {
    "MSE": "mean squared error",
    "weights of ghm": "weights of the gradient harmonising mechanism",
    "(1 - r)^2": "(1 − r)²",
}


def spoken_loss(loss: str) -> str:
    """Return a loss, as conventions name it, without abbreviations.

    >>> spoken_loss("mse, weights of ghm fixed over these examples"), spoken_loss("MSE + 0.5 (1 - r)^2")
    ('mean squared error, weights of the gradient harmonising mechanism fixed over these examples', \
'mean squared error + 0.5 (1 − r)²')
    """
    name, *rest = loss.split(", ")
    loss = ", ".join([loss_in_words(name), *rest])
    for short, words in SPOKEN.items():
        loss = loss.replace(short, words)
    return loss


def gradients_of(conventions: Mapping[str, Any], examples: int) -> str:
    """Return which gradients are measured.

    >>> gradients_of({"loss": "cross-entropy", "unit": "batch of 8"}, 64)
    'gradients of the loss (cross-entropy), 64 examples in batches of 8'
    """
    size = str(conventions.get("unit", "sample")).removeprefix("batch of ")
    batches = "" if size == "sample" else f" in batches of {size}"
    loss = spoken_loss(conventions["loss"])
    named = f" ({loss})" if loss not in ("", "loss") else ""  # a user's function may be called so
    return f"gradients of the loss{named}, {counted(examples, 'example')}{batches}"
