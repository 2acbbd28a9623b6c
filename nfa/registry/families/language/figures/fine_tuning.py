"""Loss curves of a fine-tuning."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nfa.figures.notes import add_notes, say_empty
from nfa.figures.style import BLUE, GREEN, VERMILLION, add_legend, add_title, epoch_axis, panels, plain_numbers, style
from nfa.figures.training_analysis import Series, between, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES: dict[str, dict[str, Any]] = {
    "train/step_loss": {"label": "training questions of the step", "color": BLUE, "alpha": 0.5},
    "eval/loss": {"label": "held-out questions", "color": VERMILLION, "marker": "s", "markersize": 2.5},
}
ABOVE_0 = (0.0, None)
LORA = "LoRA: low-rank adaptation; a nat is 1 / ln 2 bits of negative log-likelihood (cross-entropy)"


def loss_curves(series: Mapping[str, Series], *, title: str = "") -> "Figure":
    """Loss of each step's questions before the step, loss of the held-out ones, and the gradient's norm; bands
    lie between the ends that means over seeds have beside them.
    """
    figure, places = panels(2, columns=2, width=3.9, height=2.9)
    with style():
        for key, look in CURVES.items():
            draw(places[0], series.get(key, {}), **look)
            between(places[0], series, key, look["color"], limits=ABOVE_0)
        places[0].set_ylabel("loss, nats per answer token")
        draw(places[1], series.get("train/grad_norm", {}), label="gradient norm", color=GREEN)
        places[1].set_ylabel("gradient norm before clipping")
        if series.get("train/grad_norm"):
            places[1].set_yscale("log")
            between(places[1], series, "train/grad_norm", GREEN)
            plain_numbers(places[1].yaxis)
        else:
            say_empty(places[1], "no gradient norm was logged")
        for place in places:
            epoch_axis(place, None, "optimizer step")
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, [LORA])
    return figure
