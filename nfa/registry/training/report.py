"""Reports and figures of trainings with our loop, made only from their logged series."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nfa.checkpoint_schedule import phase_boundary
from nfa.console import stage
from nfa.figures.pages import MOST_PANELS, analysis_page
from nfa.figures.site_kinds import Shown
from nfa.figures.site_kinds import shown as some_sites
from nfa.figures.training_analysis import Series
from nfa.levels import OVER_SEEDS, SUFFIXES
from nfa.plain_text import told
from nfa.registry import tracking
from nfa.registry.families.registry import family
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.figures.optimizer_comparison import optimizer_comparison
from nfa.registry.training.over_seeds import BAND, said
from nfa.registry.typed_values import seed_list
from nfa.relations import KNOWN, TRAINING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def results(series: Mapping[str, Series], sites: Sequence[str], conventions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `results.json`: lists over checkpoint epochs; undefined values are null.

    `layer_levels` has errors and levels beside the correlations, by relation and suffix, such as "agop_nfm_chance", and
    beside means over seeds the ends of their intervals, such as "agop_nfm_lo" and "val_losses_lo".
    """
    epochs = checkpoint_epochs(series)

    def over_epochs(key: str) -> list[float | None]:
        return [series.get(key, {}).get(epoch) for epoch in epochs]

    def by_layer(relation: str) -> dict[str, list[float | None]]:
        return {str(index): over_epochs(f"{site}/{relation}") for index, site in enumerate(sites)}

    logged = {key.rpartition("/")[2] for key in series}
    beside = [f"{name}{end}" for name in TRAINING for end in (*SUFFIXES, *OVER_SEEDS) if f"{name}{end}" in logged]
    losses = {f"{split}_losses{end}": f"{split}/loss{end}" for split in ("train", "val") for end in OVER_SEEDS}
    return {
        "epochs": epochs,
        "train_losses": over_epochs("train/loss"),
        "val_losses": over_epochs("val/loss"),
        "layer_correlations": by_layer("agop_nfm"),
        "layer_correlations_init_removed": by_layer("agop_nfm_init_removed"),
        **({"layer_levels": {name: by_layer(name) for name in beside}} if beside else {}),
        **{name: over_epochs(key) for name, key in losses.items() if key in series},
        "conventions": dict(conventions),
    }


def checkpoint_epochs(series: Mapping[str, Series]) -> list[int]:
    """Return the checkpoint epochs, which are those with an evaluation of the training examples."""
    return sorted(series.get("train/loss", {}))


def training_figure(
    series: Mapping[str, Series], sites: Sequence[str], title: str, *, loss: str = "", band: str = ""
) -> "Figure":
    """Draw the figure `training_analysis` of one run, with alignment to known features if there are any.

    `loss` is the name of the loss, and `band` that of the bands between the ends that a mean over seeds has beside it.
    """
    shown = [TRAINING[0], *(name for name in KNOWN if any(f"{site}/{name}" in series for site in sites))]
    boundary = phase_boundary(checkpoint_epochs(series))
    return analysis_page(series, sites, shown, title=title, loss=loss, boundary=boundary, band=band)


def comparison_figure(
    runs: Mapping[str, Mapping[str, Series]], sites: Sequence[str], title: str, loss: str = ""
) -> "Figure":
    """Draw the figure `optimizer_comparison` of several runs; many sites as means over their blocks, or some of them.
    """
    epochs = sorted(set().union(*(checkpoint_epochs(series) for series in runs.values())))
    found = {name: some_sites(series, sites, TRAINING[:1], MOST_PANELS - 1) for name, series in runs.items()}
    one = next(iter(found.values()), Shown({}, list(sites), ""))
    drawn = {name: of.series for name, of in found.items()}
    look: dict[str, Any] = {"boundary": phase_boundary(epochs), "title": title, "loss": loss, "note": one.said}
    return optimizer_comparison(drawn, one.sites, **look)


def compare(parent: TrackedRun, subject: str) -> None:
    """Compare the child runs of a parent in a figure; `subject` is what they trained on what."""
    runs = tracking.children(parent.run_id, parent.info.info.experiment_id)
    variants = {_called(run): run.info.run_id for run in runs if "nfa.variant" in run.data.tags}
    series = dict(zip(variants, tracking.histories(variants.values()).values(), strict=True))
    seeds = [run.data.tags["nfa.seeds"] for run in runs if "nfa.seeds" in run.data.tags]
    over = said(seed_list(seeds[0])) if seeds else f"seed {tracking.config(parent.run_id)['train']['seed']}"
    figure = comparison_figure(series, sites_of(series.values()), f"{subject}, {over}", _loss(parent))
    tracking.save_picture(parent, figure, "optimizer_comparison")
    stage("figure", "plots/optimizer_comparison.png and .pdf")


def _called(run: Any) -> str:
    """Return a variant with its learning rate."""
    lr = tracking.config(run.info.run_id)["train"]["lr"]
    return told({"optimizer": run.data.tags["nfa.variant"], "lr": lr})


def _loss(run: TrackedRun) -> str:
    stored = tracking.config(run.run_id)
    return family(stored["workload"]).loss(stored)


def report_seeds(parent: TrackedRun, series: Mapping[str, Series], seeds: Sequence[int], title: str) -> None:
    """Write results.json and the figure `training_analysis` of means over seeds."""
    sites = sites_of([series])
    content = {"seeds": list(seeds), **results(series, sites, _conventions(parent))}
    tracking.put_json(parent.info, "results.json", content)
    if sites:
        figure = training_figure(series, sites, title, loss=_loss(parent), band=BAND)
        tracking.save_picture(parent, figure, "training_analysis")
        stage("figure", "plots/training_analysis.png and .pdf")


def _conventions(parent: TrackedRun) -> dict[str, Any]:
    """Return the conventions of the analysis, which are the same for all seeds; nothing if all have failed."""
    below = [child.info.run_id for child in tracking.children(parent.run_id, parent.info.info.experiment_id)]
    whole = next((run_id for run_id in below if tracking.has_artifact(run_id, "results.json")), None)
    return dict(tracking.get_json(whole, "results.json")["conventions"]) if whole else {}


def sites_of(runs: Iterable[Mapping[str, Series]]) -> list[str]:
    """Return the sites that occur in the series."""
    keys = dict.fromkeys(key for series in runs for key in series if key.endswith(f"/{TRAINING[0]}"))
    return [key.removesuffix(f"/{TRAINING[0]}") for key in keys]
