"""What a page holds: the words that its template writes, and the numbers that its script draws.

Numbers are arrays of float32 in little-endian order, in base64; of float64 after "8:", where float32 would change a
whole number. NaN stands for a value that does not exist. Every list "of each run" is in the order of `runs`, every list
"of each group" in that of `groups`.
"""

from typing import NotRequired, TypedDict

Numbers = str  # float32, or float64 after "8:"; little-endian, base64


class PageRun(TypedDict):
    """A run whose values are shown; runs of equal `variant` differ only in their seed."""

    id: str
    name: str
    variant: str
    seed: str | None  # as it was logged: a script has no whole numbers beyond 2^53
    entrypoint: str
    status: str
    started: str  # ISO 8601, UTC
    seconds: float | None
    commit: str
    coverage: str
    unit: str  # of its steps: epoch or step
    holders: list[str]  # ids of the runs that have logged its values: itself and its analyses
    parameters: dict[str, str]


class PageGroup(TypedDict):
    """Runs that differ only in their seed: their places in `runs`. A group may have a single run."""

    name: str
    runs: list[int]
    apart: NotRequired[list[str]]  # keys that its runs have measured in different ways: they have no mean


class PageKey(TypedDict):
    """How the series of a metric key is drawn; `relation` is empty where the value does not belong to a site."""

    key: str
    title: str
    site: str
    relation: str
    axis: str  # label, with the kind of loss or the unit
    limits: list[float | None]  # [least, greatest] possible value
    logarithmic: bool
    better: str  # "high", "low" or "" where the key does not tell
    held: NotRequired[bool]  # its value holds until the next step, as a learning rate does: drawn as steps


class Curve(TypedDict):
    """A series: its steps, as a place in `steps`, its values, and what stands beside them at the same steps."""

    steps: int
    values: Numbers
    se: NotRequired[Numbers]
    unbiased: NotRequired[Numbers]
    chance: NotRequired[Numbers]
    chance_sd: NotRequired[Numbers]
    shared: NotRequired[Numbers]
    shared_sd: NotRequired[Numbers]
    low: NotRequired[Numbers]  # ends of the 95 % t-interval over the runs of a group, from three on
    high: NotRequired[Numbers]
    n: NotRequired[Numbers]  # number of these runs
    of: NotRequired[int]  # the place in `holders` of the run that has logged it, unless it is the first
    points: NotRequired[int]  # logged values, where fewer are here: of each stretch the lowest and the highest are kept


class Section(TypedDict):
    """A heading, a sentence, and charts: a curve for each run or group in each of `keys`, a heat map of layers × steps
    for each of `relations`.
    """

    title: str
    sentence: str
    keys: list[str]
    relations: list[str]
    missing: str  # why there is nothing, or not everything


class Latest(TypedDict):
    """The last values of each run, for all keys: `values[key]` and `steps[key]` of each run; `of[key]` has the places
    in `holders` of the runs that have logged them, unless it is the first for all runs.
    """

    values: dict[str, Numbers]
    steps: dict[str, Numbers]
    of: dict[str, list[int]]


class PageNumbers(TypedDict):
    """All that the script of the page draws."""

    runs: list[PageRun]
    groups: list[PageGroup]
    steps: list[list[int]]
    keys: list[PageKey]  # of all series that are here, in order
    curves: dict[str, list[Curve | None]]  # by key, of each run
    means: dict[str, list[Curve | None]]  # by key, of each group: means over its runs; empty if no group has two runs
    latest: Latest
    sections: list[Section]
    pictures: "list[PictureSeries]"


class PictureSeries(TypedDict):
    """Pictures of one kind of a run by step, as data addresses, or as links where there was no room.

    A single picture that is not of a step, such as a figure of the whole run, has `by_step` false and the step 0. A run
    that compares others, such as a parent, has no place in `runs`: `run` is a number above, and `whose` its name.
    """

    run: int
    whose: NotRequired[str]
    name: str
    by_step: bool
    steps: list[int]
    pictures: list[str]  # data:image/webp;base64,… or the address of the artifact
    inlined: list[bool]


class Line(TypedDict):
    """A sentence about runs, with where its numbers come from."""

    text: str
    run: str  # id of the run that has logged the numbers
    keys: str  # the metric keys or the artifact
    step: int | None
    more: NotRequired[str]  # what is folded behind the sentence, for who wants all numbers


class TextFile(TypedDict):
    """A report that an analysis has stored."""

    title: str
    run: str
    path: str
    text: str


class TableOf(TypedDict):
    """A table with plain cells."""

    name: str
    head: list[str]
    rows: list[list[str]]
    missing: NotRequired[str]  # how many rows are not here, and where they are


class PageWords(TypedDict):
    """All that the template of the page writes."""

    title: str
    made: str
    version: str
    command: str
    report_run: str
    store: str  # address of the store, without a password
    trained: list[Line]  # what was trained on what, how, from which commit
    differences: TableOf  # parameters that differ between runs, one column for each group or run
    common: TableOf  # parameters that are the same in all runs
    verdicts: list[tuple[str, list[Line]]]  # heading and sentences, by kind of analysis
    texts: list[TextFile]
    tables: list[TableOf]  # of studies, ablations and comparisons
    conventions: list[Line]
    notices: list[Line]
    left_out: list[str]  # what is not on the page, and where it is


class Page(TypedDict):
    """A whole page."""

    words: PageWords
    numbers: PageNumbers
