"""Which series are on a page, in which sections, and how each is drawn."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from nfa.figures.flow import CURVES, MAPS
from nfa.figures.gradient_series import LABELS
from nfa.figures.gradient_series import LOGARITHMIC as OF_GRADIENTS
from nfa.figures.site_kinds import some
from nfa.figures.style import LOSSES, site_label
from nfa.levels import SUFFIXES
from nfa.plain_text import counted, natural
from nfa.registry.report.curves import kept_by
from nfa.registry.report.page_data import PageKey, Section
from nfa.registry.report.reported import Reported
from nfa.registry.results.run_table import chosen
from nfa.registry.sweeps.objectives import more_is_better
from nfa.relations import MATRICES, RELATIONS

MOST_SERIES = 15_000  # of all runs, with what stands beside them
MOST_PANELS = 12  # of a section; heat maps show the other sites
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test", "eval": "held-out"}
LIMITS: dict[str, tuple[float | None, float | None]] = {
    "*/loss": (0, None),
    "*/accuracy": (0, 1),
    "*/pearson": (-1, 1),
    "gradient/*cosine": (-1, 1),
    "gradient/silhouette": (-1, 1),
    "gradient/correlation_with_previous": (-1, 1),
    "gradient/effective_rank": (1, None),
    "gradient/label_noise_auc*": (0, 1),
    "gradient/zero_fraction": (0, 1),
    "gradient/*": (0, None),
    "flow/*": (0, None),
}
LOGARITHMIC = (*OF_GRADIENTS, "flow/*")
SCALES = {
    "cosine": "cosine similarity",
    "exponent": "exponent",
    "overlap": "overlap of the leading eigenvectors, 0 to 1",
    "stable rank": "stable rank",
    "known share": "share in the known features",
}
HELD = ("lr", "learning_rate")  # last parts of keys whose values hold until the next step
UNITS = {"accuracy": "share of examples", "pearson": "Pearson's r"}


@dataclass(frozen=True)
class ShownKeys:
    """The keys whose series are on a page, its sections, and what is not there, in words."""

    keys: list[PageKey]
    sections: list[Section]
    left_out: list[str] = field(default_factory=list)
    bare: frozenset[str] = frozenset()  # keys that are drawn without what stands beside them

    def without_curves(self, most: Mapping[str, int]) -> "ShownKeys":
        """Return these keys without those that have at `most` one value in each run; relations of sites stay."""
        few = {key["key"] for key in self.keys if most[key["key"]] < 2 and not key["relation"]}
        single = [key for key in few if most[key]]
        sections: list[Section] = [
            {**of, "keys": [key for key in of["keys"] if key not in few]} for of in self.sections
        ]
        said = f"{counted(len(single), 'key')} with a single value in each run: the table has it."
        return ShownKeys(
            [key for key in self.keys if key["key"] not in few],
            [of for of in sections if of["keys"] or of["relations"]],
            [*self.left_out, *([f"A curve of {said}"] if single else [])],
            self.bare,
        )

    def within_limits_of(self, values: Mapping[str, Collection[float]]) -> "ShownKeys":
        """Return these keys with those limits that all values of keys of the same scale keep."""
        of_scale: dict[tuple[str, str], list[float]] = {}
        for key in self.keys:
            of_scale.setdefault((key["relation"], key["axis"]), []).extend(values.get(key["key"], ()))
        keys: list[PageKey] = [
            {**key, "limits": kept_by(key["limits"], of_scale[key["relation"], key["axis"]])} for key in self.keys
        ]
        return replace(self, keys=keys)

    @property
    def names(self) -> list[str]:
        """The metric keys."""
        return [key["key"] for key in self.keys]


@dataclass(frozen=True)
class _Block:
    """Keys that are drawn together: a section, or a part of one."""

    title: str
    sentence: str
    keys: Sequence[str]
    relation: str = ""


def choose(reported: Reported, asked: str) -> ShownKeys:
    """Choose the series of a page: those that are `asked` for, or else as many of the usual ones as fit.

    Raises:
        Refusal: No run has logged a key that is asked for.
    """
    wanted = chosen(asked, reported.keys) if asked.strip() else reported.keys
    room = _Room(reported, wanted, 10**9 if asked.strip() else MOST_SERIES)
    blocks = [(block, room.take(block)) for block in _blocks(wanted)]
    taken = [replace(block, keys=fitting) for block, fitting in blocks if fitting]
    missing = [key for block, fitting in blocks for key in block.keys if key not in fitting]
    keys = [_page_key(key, reported) for key in dict.fromkeys(key for block in taken for key in block.keys)]
    return ShownKeys(
        keys, [*_sections(taken)], [*_left_out(reported, wanted, missing, room.bare)], frozenset(room.bare)
    )


class _Room:
    """The room for series: `bare` keys have got room for their values, and none for what stands beside them."""

    def __init__(self, reported: Reported, wanted: Sequence[str], room: int) -> None:
        self.left, self.bare = room, list[str]()
        self.values, self.beside = dict.fromkeys(wanted, 0), dict.fromkeys(wanted, 0)
        for one in reported.runs:
            for key in one.owners.keys() & self.values.keys():
                self.values[key] += 1
                self.beside[key] += sum(f"{key}{end}" in one.last for end in SUFFIXES)

    def take(self, block: _Block) -> list[str]:
        """Return the keys of a block that have got room; of many sites, evenly spaced ones."""
        whole = sum(self.values[key] + self.beside[key] for key in block.keys)
        if whole <= self.left:
            self.left -= whole
            return list(block.keys)
        found = self._some(block)
        self.left -= sum(self.values[key] for key in found)
        self.bare += [key for key in found if self.beside[key]]
        return found

    def _some(self, block: _Block) -> list[str]:
        each = max(self.values[key] for key in block.keys)
        most = min(len(block.keys), self.left // max(1, each))
        return some(block.keys, most) if block.relation and most > 1 else list(block.keys[:most])


def _blocks(keys: Sequence[str]) -> Iterator[_Block]:
    """Yield the keys in the order of a page: losses, scores, relations, gradients, flow, then all others."""
    rest = dict.fromkeys(sorted(keys, key=natural))

    def take(*patterns: str) -> list[str]:
        found = [key for pattern in patterns for key in rest if fnmatchcase(key, pattern)]
        for key in found:
            rest.pop(key, None)
        return list(dict.fromkeys(found))

    yield _Block("Losses", "What training minimises, and the same on examples that it did not see.", take(*_losses()))
    scores = [key for key in rest if key.partition("/")[0] in SPLIT_NAMES and more_is_better(key) is not None]
    yield _Block("Scores", "What the models are judged by.", take(*scores))
    said = "What else was logged while training, such as the learning rate."
    yield _Block("Training", said, take(*(f"{split}/*" for split in SPLIT_NAMES)))
    for name, relation in RELATIONS.items():
        said = (
            f"{' and '.join(MATRICES[one].label for one in relation.matrices)} of each site: {SCALES[relation.kind]}."
        )
        yield _Block(relation.label, said, take(f"*/{name}"), name)
    said = "How the gradients of single examples point: alike within a class, or apart."
    yield _Block("Gradient directions", said, take("gradient/*"))
    yield _Block("Gradient flow", "Whether the front of the network learns.", take(*CURVES))
    for name, label in MAPS.items():
        yield _Block(f"Gradient flow: {label}", "Of each part of the network.", take(f"flow/*/{name}"), name)
    yield _Block("Other values", "All other metrics that the runs have logged.", list(rest))


def _losses() -> Iterator[str]:
    for split in ("train", "val", "eval", "test"):
        yield f"{split}/*loss*"


def _sections(blocks: Sequence[_Block]) -> Iterator[Section]:
    for block in blocks:
        drawn = some(block.keys, MOST_PANELS) if block.relation else block.keys[: 2 * MOST_PANELS]
        left = len(block.keys) - len(drawn)
        where = "the heat map shows all sites" if block.relation else "the table has all"
        yield {
            "title": block.title,
            "sentence": block.sentence,
            "keys": list(drawn),
            "relations": [block.relation] if block.relation else [],
            "missing": f"{len(drawn)} of {len(block.keys)} curves are drawn; {where}." if left else "",
        }


def _left_out(reported: Reported, wanted: Sequence[str], missing: Sequence[str], bare: Sequence[str]) -> Iterator[str]:
    where = "their last values are in the table; name them in keys=… to see their series"
    if missing:
        shown = ", ".join(missing[:8]) + (" …" if len(missing) > 8 else "")
        yield f"The series of {counted(len(missing), 'key')} have no room here ({shown}): {where}."
    if bare:
        yield f"Errors and levels beside {counted(len(bare), 'key')} of so many runs: only the values are drawn."
    if others := len(reported.keys) - len(wanted):
        yield f"{counted(others, 'key')} that keys= does not name: {where}."


def _page_key(key: str, reported: Reported) -> PageKey:
    site, _, name = key.rpartition("/")
    of_flow = name in MAPS and site.startswith("flow/")
    relation = name if name in RELATIONS or of_flow else ""
    site = site.removeprefix("flow/") if of_flow else site if relation else ""
    more = more_is_better(key)
    found: PageKey = {
        "key": key,
        "title": _title(key, site, relation),
        "site": site,
        "relation": relation,
        "axis": _axis(key, relation, reported),
        "limits": limits_of(key),
        "logarithmic": any(fnmatchcase(key, pattern) for pattern in LOGARITHMIC),
        "better": "" if more is None or relation else "high" if more else "low",
    }
    return {**found, "held": True} if name in HELD else found


def _title(key: str, site: str, relation: str) -> str:
    if relation:
        label = RELATIONS[relation].label if relation in RELATIONS else MAPS[relation]
        return f"{site_label(site)}: {label}"
    if known := LABELS.get(key) or CURVES.get(key):
        return known
    split, _, name = key.partition("/")
    return f"{SPLIT_NAMES[split]} {name.replace('_', ' ')}" if split in SPLIT_NAMES else key


def _axis(key: str, relation: str, reported: Reported) -> str:
    """Return the label of an axis; of a loss with its kinds, because different losses are not comparable."""
    if relation:
        return SCALES[RELATIONS[relation].kind] if relation in RELATIONS else MAPS[relation]
    split, _, name = key.partition("/")
    if split in SPLIT_NAMES and name == "loss":
        kinds = loss_kinds(reported)
        return "loss" if not kinds else f"loss: {kinds[0]}" if len(kinds) == 1 else f"losses: {', '.join(kinds)}"
    return UNITS.get(name, LOSSES.get(key, {}).get("label", _title(key, "", "")))


def loss_kinds(reported: Reported) -> list[str]:
    """Return which losses the runs were trained with, as far as their parameters tell."""
    return sorted({text for one in reported.runs if (text := one.parameters.get("loss", ""))})


def limits_of(key: str) -> list[float | None]:
    """Return the least and the greatest possible value of a key; None where there is no limit.

    >>> limits_of("val/accuracy"), limits_of("layer_0/agop_nfm"), limits_of("gradient/effective_rank")
    ([0, 1], [0, 1], [1, None])
    """
    relation = key.rpartition("/")[2]
    if relation in RELATIONS:
        known: Any = RELATIONS[relation].limits or (None, None)
        return [1, None] if RELATIONS[relation].kind == "stable rank" else list(known)
    return next((list(limits) for pattern, limits in LIMITS.items() if fnmatchcase(key, pattern)), [None, None])
