"""Reports and figures of gradient directions, made only from what their runs have logged."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nfa.analyses.csv_files import directions_csv
from nfa.console import bar, stage
from nfa.figures import gradient_pictures
from nfa.figures.gradient_pictures import DrawnDirections
from nfa.figures.gradient_series import gradient_series, noise_scale
from nfa.figures.gradient_words import gradients_of
from nfa.figures.style import axis_label
from nfa.figures.training_analysis import Series
from nfa.registry import tracking
from nfa.registry.analyses import gradient_arrays
from nfa.registry.analyses.checkpoint_units import unit_of
from nfa.registry.analyses.gradient_arrays import Array
from nfa.registry.analyses.gradient_chance import levels, verdicts
from nfa.registry.analyses.gradient_phases import phases
from nfa.registry.analyses.titles import losses_of
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DONE
from nfa.studies.direction_series import SERIES

PREFIX = "gradient/"
PICTURES = ("gradient_similarities", "gradient_directions_tsne")
OF_CLASSES = {"within_class_cosine", "between_class_cosine", "silhouette"}
DESCRIBED = ("examples", "classes", "noisy", "parameters", "random_vectors", "conventions")
OF_LABEL_NOISE = {"label_noise_auc", "label_noise_auc_of_loss"}


def report(run: TrackedRun, title: str) -> None:
    """Write the table, JSON file and figures of one run."""
    series, described = tracking.history(run.run_id), tracking.get_json(run.run_id, "config.json")
    shown, unit = directions(run.run_id, series, described), unit_of(described)
    tracking.put_json(run.info, "gradient_directions.json", _content(run.run_id, series, described))
    tracking.put_text(run.info, "gradient_directions.csv", directions_csv({"": series}, unit, DONE))
    conventions = described["conventions"]
    said = f"{title}: {gradients_of(conventions, len(described['examples']))}"
    save = tracking.save_picture
    per_epoch = title if conventions["unit"] == "sample" else f"{title}, batches of {_batch_size(described)}"
    reach = gradient_pictures.map_reach(shown.values())
    for epoch, one in bar(shown.items(), "pictures", unit=unit):
        label = f"{per_epoch}, {axis_label(unit)} {epoch}"
        pictures = (
            gradient_pictures.gradient_similarities(one, title=label),
            gradient_pictures.gradient_map(one, title=label, reach=reach),
        )
        for name, picture in zip(PICTURES, pictures, strict=True):
            save(run, picture, f"{name}_{unit}_{epoch}", also_pdf=False)
    for name, page, words in _montages(shown):
        save(run, gradient_pictures.gradient_montage({"": page}, title=said + words, unit=unit, reach=reach), name)
    figure = gradient_series({"": series}, title=said, unit=unit, loss=losses_of(described["sources"]))
    save(run, figure, "gradient_directions")
    save(run, noise_scale(series, title=said, unit=unit), f"gns_vs_{unit}")
    for name in PICTURES:
        tracking.put_images(run.info, name, {epoch: f"plots/{name}_{unit}_{epoch}.png" for epoch in shown})
    none = f"no map: at every {unit}, all gradients are zero or not finite"
    of_each = f"gradient_montage.png and two figures per {unit}" if shown else none
    stage("figures", f"plots/gradient_directions.png, gns_vs_{unit}.png; {of_each}")
    for verdict in verdicts(series, unit):
        stage("chance", verdict)


def _montages(shown: Mapping[int, DrawnDirections]) -> Iterator[tuple[str, Mapping[int, DrawnDirections], str]]:
    """Yield the name, the checkpoints and the words about them of each page of a montage."""
    pages = gradient_pictures.montage_pages(shown)
    drawn = sum(map(len, pages))
    some = f", {drawn} of {len(shown)} checkpoints" if drawn < len(shown) else ""
    for number, page in enumerate(pages, 1):
        words = f", page {number} of {len(pages)}" if len(pages) > 1 else ""
        yield "gradient_montage" + (f"_{number}" if number > 1 else ""), page, some + words


def directions(run_id: str, series: Mapping[str, Series], described: Mapping[str, Any]) -> dict[int, DrawnDirections]:
    """Return what is drawn of each checkpoint; rows keep one order throughout: by class, then by mean loss."""
    arrays = {epoch: _arrays(run_id, epoch) for epoch in sorted(series[DONE])}
    losses = _means([of_epoch["losses"] for of_epoch in arrays.values()])
    drawn = {epoch: of_epoch for epoch, of_epoch in arrays.items() if len(of_epoch["kept"])}
    size = _batch_size(described)
    if size > 1:
        whole = len(losses) // size * size
        losses = losses[:whole].reshape(-1, size).mean(axis=1)
        order, what = np.arange(len(losses)), f"batches of {size}"
        return {epoch: DrawnDirections.in_order(of_epoch, order, losses, what) for epoch, of_epoch in drawn.items()}
    classes, noisy = (None if described[key] is None else np.array(described[key]) for key in ("classes", "noisy"))
    order = np.lexsort((losses, classes if classes is not None else np.zeros_like(losses)))
    beside = (order, losses, "examples", classes, noisy)
    return {epoch: DrawnDirections.in_order(of_epoch, *beside) for epoch, of_epoch in drawn.items()}


def _means(losses: Sequence[Array]) -> Array:
    """Return each example's mean loss over the checkpoints at which it is finite; 0 if there is none."""
    finite = np.isfinite(losses)
    means: Array = np.where(finite, losses, 0).sum(axis=0) / finite.sum(axis=0).clip(1)
    return means


def _batch_size(described: Mapping[str, Any]) -> int:
    """Return the number of examples per gradient."""
    unit = described["conventions"]["unit"]
    return 1 if unit == "sample" else int(unit.rpartition(" ")[2])


def _arrays(run_id: str, epoch: int) -> dict[str, Array]:
    keys = ("cosines", "map", "norms", "kept", "losses")
    return {key: gradient_arrays.load(run_id, epoch, key) for key in keys}


def _content(run_id: str, series: Mapping[str, Series], described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `gradient_directions.json`: lists over epochs; undefined values are null and counted."""
    epochs, names = sorted(series[DONE]), _expected(described)
    values, errors = (
        {name: [series.get(f"{PREFIX}{name}{end}", {}).get(epoch) for epoch in epochs] for name in names}
        for end in ("", "_se")
    )
    count = len(described["examples"]) // _batch_size(described)
    kept = {epoch: set(gradient_arrays.load(run_id, epoch, "kept").tolist()) for epoch in epochs}
    without = {str(epoch): [place for place in range(count) if place not in kept[epoch]] for epoch in epochs}
    return {
        f"{unit_of(described)}s": epochs,
        "series": values,
        "standard_errors": errors,
        **levels(series, epochs),
        "undefined": {name: found.count(None) for name, found in values.items() if None in found},
        "phases": phases(run_id, series) if unit_of(described) == "epoch" else {},
        "without_direction": {epoch: places for epoch, places in without.items() if places},
        **{key: described[key] for key in DESCRIBED if key in described},
    }


def _expected(described: Mapping[str, Any]) -> list[str]:
    """Return the series to be expected for these examples."""
    classes, noisy = (described[key] is not None and _batch_size(described) == 1 for key in ("classes", "noisy"))
    left_out = (set() if classes else OF_CLASSES) | (set() if classes and noisy else OF_LABEL_NOISE)
    of_sketch = "sketch_error" if described.get("random_vectors") else "correlation_with_previous"
    return [*(name for name in SERIES if name not in left_out), "zero_fraction", of_sketch]


def line(values: Mapping[str, float]) -> str:
    """Return the console line of a checkpoint."""
    names = {"mean_cosine": "cosine", "within_class_cosine": "within", "between_class_cosine": "between"}
    names |= {"silhouette": "silhouette", "effective_rank": "rank", "noise_scale": "noise scale"}
    found = {shown: values.get(PREFIX + name) for name, shown in names.items()}
    said = "  ".join(f"{shown} {value:.4g}" for shown, value in found.items() if value is not None)
    return f"{said or 'no value is defined'}  {values[DONE]:.1f} s"
