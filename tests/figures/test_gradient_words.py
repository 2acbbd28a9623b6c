"""Titles name the gradients without abbreviations."""

import pytest

from nfa.figures.gradient_words import gradients_of, spoken_loss


@pytest.mark.parametrize("loss", ["loss", "<lambda>"])
def test_a_function_whose_name_says_nothing_is_not_named(loss: str) -> None:
    assert gradients_of({"loss": loss}, 1) == "gradients of the loss, 1 example"


def test_losses_are_spelled_out() -> None:
    assert spoken_loss("mse") == spoken_loss("MSELoss") == "mean squared error"
    assert spoken_loss("MSE + 1 (1 - r)^2") == "mean squared error + 1 (1 − r)²"
