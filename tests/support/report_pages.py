"""Pages of reports with made-up numbers, to look at and to try the script of a page on."""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfa.registry.report.page_data import (
    Curve,
    Latest,
    Line,
    Page,
    PageGroup,
    PageKey,
    PageNumbers,
    PageRun,
    PageWords,
    PictureSeries,
    Section,
    TableOf,
)

Floats = NDArray[np.floating[Any]]
Curves = dict[str, list[Curve | None]]
RELATIONS = ("agop_nfm", "g_nfm", "h_agop")
VARIANTS = ("sgd, lr 0.1", "adam, lr 0.001", "muon with a very long name, weight decay 0.0005, momentum 0.95")
STEPS = [0, 1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40]
# A picture of four pixels.
PIXELS = "data:image/png;base64," + (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGNk+M/AwMDAxAADjCgMBgAKJgEDxGYUyAAAAABJRU5ErkJggg=="
)


def numbers_of(values: Sequence[float] | Floats) -> str:
    """Values as a page holds them."""
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode()


def a_page(*, seeds: int = 4, sites: int = 6, variants: Sequence[str] = VARIANTS, steps: Sequence[int] = STEPS) -> Page:
    """Three variants of some seeds, three relations at each site, losses, a learning rate; not everything is there."""
    runs = [
        _run(variant, seed, index * seeds + seed) for index, variant in enumerate(variants) for seed in range(seeds)
    ]
    groups = [PageGroup(name=name, runs=list(range(i * seeds, (i + 1) * seeds))) for i, name in enumerate(variants)]
    keys = [*_plain_keys(), *(_key_of(site, relation) for site in range(sites) for relation in RELATIONS)]
    curves: Curves = {key["key"]: [_curve(key, run, seeds, steps) for run in range(len(runs))] for key in keys}
    curves["val/loss"][-1] = None  # this run has not logged it
    means = {key: [_mean([of[r] for r in group["runs"]]) for group in groups] for key, of in curves.items()}
    return Page(words=_words(runs), numbers=_numbers(runs, groups, keys, curves, means if seeds > 1 else {}, steps))


def a_large_page(runs: int = 1000, sites: int = 22, steps: int = 100) -> Page:
    """As many runs as a large study has, each a variant: sites and two losses as keys."""
    variants = [f"lr {10 ** -(1 + 3 * index / runs):.5f}, width {32 + index % 7}" for index in range(runs)]
    page = a_page(seeds=1, sites=1, variants=variants, steps=range(steps))
    keys = [*_plain_keys()[:2], *(_key_of(site, RELATIONS[0]) for site in range(sites))]
    curves: Curves = {key["key"]: [_bare(_curve(key, run, 1, range(steps))) for run in range(runs)] for key in keys}
    page["numbers"] = _numbers(page["numbers"]["runs"], page["numbers"]["groups"], keys, curves, {}, range(steps))
    return page


def _bare(curve: Curve) -> Curve:
    return Curve(steps=curve["steps"], values=curve["values"])


def _run(variant: str, seed: int, place: int) -> PageRun:
    identity = f"{place + 1:032x}"[::-1]
    return PageRun(
        id=identity,
        name=f"{variant} seed {seed}",
        variant=variant,
        seed=str(seed),
        entrypoint="train",
        status="FINISHED",
        started="2026-11-29T08:00:00Z",
        seconds=61.5,
        commit="0123abc",
        coverage="watching 2,568 of 2,760 weights",
        unit="epoch",
        holders=[identity, identity[::-1]],
        parameters={"width": "64", "optimizer": variant.split(",")[0]},
    )


def _plain_keys() -> list[PageKey]:
    def key(name: str, title: str, axis: str, better: str, limits: list[float | None], **more: bool) -> PageKey:
        logarithmic, held = more.get("logarithmic", False), more.get("held", False)
        return PageKey(
            key=name,
            title=title,
            site="",
            relation="",
            axis=axis,
            limits=limits,
            logarithmic=logarithmic,
            better=better,
            held=held,
        )

    return [
        key("train/loss", "Training loss", "cross-entropy, nats", "low", [0, None], logarithmic=True),
        key("val/loss", "Validation loss", "cross-entropy, nats", "low", [0, None], logarithmic=True),
        key("val/accuracy", "Validation accuracy", "share of examples", "high", [0, 1]),
        key("train/learning_rate", "Learning rate", "learning rate", "", [0, None], held=True),
    ]


def _key_of(site: int, relation: str) -> PageKey:
    return PageKey(
        key=f"layer_{site}/{relation}",
        title=f"layer_{site}: {relation.replace('_', ' and ')}",
        site=f"layer_{site}",
        relation=relation,
        axis=f"cosine of {relation.replace('_', ' and ').upper()}",
        limits=[-1, 1],
        logarithmic=False,
        better="",
    )


def _curve(key: PageKey, run: int, seeds: int, steps: Sequence[int]) -> Curve:
    """A smooth curve with noise that depends on the run and the key alone; the third key of runs has a gap."""
    variant, draw = run // seeds, np.random.default_rng([run, *key["key"].encode()])
    share = np.arange(len(steps)) / max(len(steps) - 1, 1)
    if key["relation"]:
        site = int(key["site"].removeprefix("layer_"))
        values = (0.1 + 0.6 * share / (1 + 0.3 * (site % 9))) * (1 + 0.2 * (variant % 5)) + draw.normal(
            0, 0.02, len(steps)
        )
        return _similarity(np.clip(values, -1, 1).astype(np.float32), gap=site == 2, site=site)
    if key.get("held"):
        return Curve(steps=0, values=numbers_of(0.1 * 0.5 ** np.floor(share * 3)))
    falling = 2.3 * np.exp(-3 * share / (1 + variant % 5)) + 0.02 + np.abs(draw.normal(0, 0.03, len(steps)))
    return Curve(
        steps=0, values=numbers_of(falling if "loss" in key["key"] else 1 - falling / 2.5), points=1 + len(steps)
    )


def _similarity(values: Floats, *, gap: bool, site: int) -> Curve:
    if gap:
        values[len(values) // 3 : len(values) // 2] = math.nan
    if site == 1:
        values[1:] = math.nan  # one checkpoint only
    flat = np.ones_like(values)
    return Curve(
        steps=0,
        values=numbers_of(values),
        se=numbers_of(0.02 * flat),
        unbiased=numbers_of(values - 0.01),
        chance=numbers_of(0.08 * flat),
        chance_sd=numbers_of(0.015 * flat),
        shared=numbers_of(0.2 * flat),
        of=1,
    )


def _mean(curves: Sequence[Curve | None]) -> Curve | None:
    """The mean, with an interval from three runs on; none where a run has no curve."""
    if any(curve is None for curve in curves):
        return None
    stack = np.stack([np.frombuffer(base64.b64decode(curve["values"]), "<f4") for curve in curves if curve])
    mean, half = stack.mean(0), 1.5 * stack.std(0, ddof=1 if len(stack) > 1 else 0)
    ends = {"low": numbers_of(mean - half), "high": numbers_of(mean + half)} if len(stack) > 2 else {}
    first = curves[0] or Curve(steps=0, values="")
    beside = {name: first[name] for name in ("chance", "chance_sd", "shared") if name in first}
    n = numbers_of(np.full(len(mean), len(stack)))
    return Curve(steps=0, values=numbers_of(mean), n=n, **ends, **beside)  # type: ignore[typeddict-item, no-any-return]


def _numbers(
    runs: list[PageRun],
    groups: list[PageGroup],
    keys: list[PageKey],
    curves: Curves,
    means: Curves,
    steps: Sequence[int],
) -> PageNumbers:
    plain = [key["key"] for key in keys if not key["relation"]]
    relations = list(dict.fromkeys(key["relation"] for key in keys if key["relation"]))
    return PageNumbers(
        runs=runs,
        groups=groups,
        steps=[list(steps)],
        keys=keys,
        curves=curves,
        means=means,
        latest=_latest(runs, curves, steps),
        sections=[
            Section(title="Losses", sentence="Over all examples.", keys=plain, relations=[], missing=""),
            Section(
                title="Alignment",
                sentence="How similar two matrices of a layer are.",
                keys=[key["key"] for key in keys if key["relation"]],
                relations=relations,
                missing="layer_1 was measured at one checkpoint only.",
            ),
            Section(title="Gradient flow", sentence="", keys=[], relations=[], missing="No analysis of it was made."),
        ],
        pictures=[
            _pictures(run, name) for run in range(min(len(runs), 12)) for name in ("map of classes", "Gram matrix")
        ],
    )


def _latest(runs: list[PageRun], curves: Curves, steps: Sequence[int]) -> Latest:
    def last(curve: Curve | None) -> float:
        return float(np.frombuffer(base64.b64decode(curve["values"]), "<f4")[-1]) if curve else math.nan

    values = {key: numbers_of([last(curve) for curve in of]) for key, of in curves.items()}
    steps_of = {key: numbers_of([steps[-1] if curve else math.nan for curve in of]) for key, of in curves.items()}
    values["test/accuracy"] = numbers_of([0.9 + 0.001 * (run % 50) for run in range(len(runs))])
    steps_of["test/accuracy"] = numbers_of([steps[-1]] * len(runs))
    return Latest(values=values, steps=steps_of, of={})


def _pictures(run: int, name: str) -> PictureSeries:
    steps = [0, 5, 20, 40] if run % 2 == 0 else [5, 40]
    inlined = [run < 10 and step < 40 for step in steps]
    addresses = [
        PIXELS if here else f"https://tracking.example/{run}/{step}.png"
        for step, here in zip(steps, inlined, strict=True)
    ]
    return PictureSeries(run=run, name=name, by_step=True, steps=steps, pictures=addresses, inlined=inlined)


def _line(text: str, run: str = "", keys: str = "", step: int | None = None) -> Line:
    return Line(text=text, run=run, keys=keys, step=step)


def _words(runs: list[PageRun]) -> PageWords:
    run = runs[0]["id"]
    return PageWords(
        title="Three optimizers on digits",
        made="2026-11-29 08:30 UTC",
        version="0.7.0",
        command="mlflow run . -e report -P run_id=latest",
        report_run="f" * 32,
        store="sqlite:///mlflow.db",
        trained=[
            _line(
                "A multilayer perceptron of 6 layers, 64 wide, on digits (1,437 training examples).", run, "config.json"
            ),
            _line("Cross-entropy, 40 epochs, batches of 64, from commit 0123abc.", run, "config.json"),
        ],
        differences=TableOf(
            name="Parameters that differ",
            head=["parameter", *sorted({one["variant"] for one in runs[:40]})],
            rows=[["optimizer", *sorted({one["variant"].split(",")[0] for one in runs[:40]})], ["lr", "0.1", "0.001"]],
        ),
        common=TableOf(
            name="Parameters of all runs", head=["parameter", "value"], rows=[["width", "64"], ["depth", "6"]]
        ),
        verdicts=[
            (
                "Alignment",
                [
                    _line(
                        "AGOP and NFM align above chance in 5 of 6 layers: 0.61 ± 0.04 against 0.08.",
                        run,
                        "layer_0/agop_nfm",
                        40,
                    ),
                    _line("After the first epoch the similarity of layer_1 is not known.", run, "layer_1/agop_nfm", 0),
                ],
            ),
            ("Losses", [_line("muon reaches 0.05 [0.04, 0.06] first.", run, "val/loss, val/loss_lo, val/loss_hi", 40)]),
        ],
        texts=[
            {
                "title": "similarities.txt",
                "run": run,
                "path": "similarities.txt",
                "text": "layer_0   0.61\nlayer_1   –\n",
            }
        ],
        tables=[
            TableOf(
                name="Trials of the study",
                head=["trial", "lr", "val/loss"],
                rows=[["0", "0.1", "0.05"], ["1", "0.3", "0.4"]],
            )
        ],
        conventions=[_line("A cosine is between the centred matrices.", run, "nfa.convention")],
        notices=[_line("Run 3 was resumed once.", run, "nfa.state")],
        left_out=["2 pictures of 12 runs are links, for want of room: https://tracking.example/artifacts"],
    )


SPITE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{ 7*7 }}<!--"


def a_spiteful_page() -> Page:
    """All words and names are code, as somebody might have typed them who wishes the reader ill."""
    page = a_page(seeds=2, sites=1)
    spoiled: Page = _spoil(page)  # type: ignore[assignment]
    return spoiled


def _spoil(value: object, name: str = "") -> object:
    if isinstance(value, dict):
        return {key: _spoil(one, key) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_spoil(one, name) for one in value)
    spared = {"id", "values", "se", "unbiased", "chance", "chance_sd", "shared", "low", "high", "n", "better", "unit"}
    keys = {"key", "keys", "relation", "relations", "site", "holders", "steps"}
    return f"{value}{SPITE}" if isinstance(value, str) and name not in spared | keys | set(_KEYS) else value


_KEYS = ("pictures", "train/loss", "val/loss", "val/accuracy", "train/learning_rate", "test/accuracy")
