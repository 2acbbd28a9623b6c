"""Several training runs side by side: one colour for each."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from nfa.figures.style import add_legend, mark_boundary, panels, style
from nfa.figures.training_analysis import Series, draw

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
MARKERS = ("o", "s", "^", "D", "v", "*")


def optimizer_comparison(
    runs: Mapping[str, Mapping[str, Series]],
    sites: Sequence[str],
    *,
    relation: str = "agop_nfm",
    label: str = "AGOP vs NFM",
    boundary: int | None = None,
) -> Figure:
    """A panel of losses (validation dashed), then one panel a site with `relation`; `runs` are series by run name."""
    figure, places = panels(len(sites) + 1)
    with style():
        for place, site in zip(places, (None, *sites), strict=True):
            for (name, series), color, marker in zip(runs.items(), COLOURS, MARKERS, strict=False):
                if site is None:
                    draw(place, series.get("train/loss", {}), color=color, label=f"{name}: train")
                    draw(place, series.get("val/loss", {}), color=color, linestyle="--", label=f"{name}: validation")
                else:
                    draw(place, series.get(f"{site}/{relation}", {}), color=color, marker=marker, label=name)
            mark_boundary(place, boundary)
            place.set(title="losses" if site is None else site.replace("_", " "), xlabel="epoch")
            place.set(
                ylabel="loss" if site is None else label, **({"yscale": "log"} if site is None else {"ylim": (0, 1)})
            )
        handles = [
            *places[0].get_legend_handles_labels()[0][: 2 * len(runs)],
            *places[1].get_legend_handles_labels()[0],
        ]
        add_legend(figure, handles)
    return figure
