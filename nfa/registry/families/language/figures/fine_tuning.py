"""Loss curves of a fine-tuning."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nfa.figures.style import add_legend, add_title, epoch_axis, panels, plain_numbers, style
from nfa.figures.training_analysis import Series, between, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES: dict[str, dict[str, Any]] = {
    "train/step_loss": {"label": "training questions of the step", "color": "tab:blue", "alpha": 0.5},
    "eval/loss": {"label": "held-out questions", "color": "tab:red", "marker": "s"},
}


def loss_curves(series: Mapping[str, Series], *, title: str = "") -> "Figure":
    """Loss of each step's questions before the step, loss of the held-out ones, and the gradient's norm; bands
    lie between the ends that means over seeds have beside them.
    """
    figure, places = panels(2, columns=2, width=3.9, height=2.9)
    with style():
        for key, look in CURVES.items():
            draw(places[0], series.get(key, {}), **look)
            between(places[0], series, key, look["color"])
        places[0].set_ylabel("loss, nats per answer token")
        draw(places[1], series.get("train/grad_norm", {}), label="gradient norm", color="tab:green")
        places[1].set_ylabel("gradient norm before clipping")
        places[1].set_yscale("log")
        between(places[1], series, "train/grad_norm", "tab:green")
        plain_numbers(places[1].yaxis)
        for place in places:
            epoch_axis(place, None, "optimizer step")
        add_title(figure, title)
        add_legend(figure)
    return figure
