"""The pictures of a page: as many of them as there is room for are inside it, and the others are links.

Links are absolute, because the page is also copied to other folders and sent to other people: a file beside it would
not be there. A picture inside the page is a copy in WebP.
"""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nfa.console import bar
from nfa.errors import NfaError, headline
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.report.page_data import PictureSeries

ROOM = 20 * 10**6  # bytes of all data addresses
MOST_RUNS = 12  # with pictures inside the page
MOST_LOOKED_AT = 100  # runs whose pictures are looked for
COPIES = ((1000, 80), (700, 70), (500, 60))  # longest side in pixels and quality, the best first
READABLE = 0.4  # of their size in pixels, in which 9-point letters at 200 dpi are 10 pixels high
MOST_NAMED = 5  # pictures that could not be read
OF_A_STEP = re.compile(r"(.+)_(?:epoch|step)_(\d+)")
HEAD = "data:image/webp;base64,"


@dataclass(frozen=True)
class Found:
    """Pictures of one name of the page's run `place`: paths among the artifacts of `holder`, by step."""

    place: int
    holder: Any  # a run of MLflow
    name: str
    by_step: bool
    paths: Mapping[int, str]

    def entry(self, inlined: Mapping[str, str], comparing: Mapping[int, Any]) -> PictureSeries:
        """Return the data of the page; `inlined` holds data addresses by the address of the artifact."""
        addresses = [tracking.artifact_address(self.holder, path) for path in self.paths.values()]
        entry: PictureSeries = {
            "run": self.place,
            "name": self.name,
            "by_step": self.by_step,
            "steps": [*self.paths],
            "pictures": [inlined.get(address, address) for address in addresses],
            "inlined": [address in inlined for address in addresses],
        }
        if self.place in comparing:
            entry["whose"] = str(self.holder.info.run_name)
        return entry


def picture_series(
    runs: Sequence[tuple[int, Sequence[Any]]], comparing: Mapping[int, Any] = {}
) -> tuple[list[PictureSeries], list[str]]:
    """Return the pictures of runs, and sentences that say what is not inside the page, and why.

    Args:
        runs: The place of each run in the page, and the MLflow runs that hold its pictures: itself and its analyses,
            the newest first. Of pictures with the same name, those of the first of them are shown.
        comparing: Runs that compare these, such as parents, by places that no run has. Their pictures come first.
    """
    looked_at = [*((place, [run]) for place, run in comparing.items()), *runs[:MOST_LOOKED_AT]]
    found, unlisted = [], list[str]()
    for place, holders in bar(looked_at, "pictures", unit="run"):
        found += _of(place, holders, unlisted)
    places = dict.fromkeys(one.place for one in found)
    shown = [*comparing, *[place for place in places if place not in comparing][:MOST_RUNS]]
    inlined, unread = _inlined([one for one in found if one.place in shown])
    entries = [one.entry(inlined, comparing) for one in found]
    said = [*_about_runs(entries, shown), *_about_room(entries, shown, len(unread)), *_about_unread(unread), *unlisted]
    if (more := len(runs) - MOST_LOOKED_AT) > 0:
        others = f"those of {counted(more, 'more run')} are among their artifacts, in plots/."
        said.append(f"Pictures were looked for in the first {MOST_LOOKED_AT} runs; {others}")
    return entries, said


def _of(place: int, holders: Sequence[Any], unlisted: list[str]) -> list[Found]:
    """Return a run's pictures, sorted by name, each from the first holder that has one of this name."""
    found: dict[str, Found] = {}
    for holder in holders:
        try:
            found = {**_by_name(place, holder, tracking.picture_paths(holder)), **found}
        except (NfaError, *tracking.StoreError) as error:
            unlisted.append(f"The pictures of run {holder.info.run_id[:12]} could not be listed: {headline(error)}.")
    return [found[name] for name in sorted(found)]


def _by_name(place: int, holder: Any, paths: Sequence[str]) -> dict[str, Found]:
    by_step: dict[str, dict[int, str]] = {}
    single: dict[str, Found] = {}
    for path in paths:
        name = path.rpartition("/")[2].removesuffix(".png")
        if match := OF_A_STEP.fullmatch(name):
            by_step.setdefault(match[1], {})[int(match[2])] = path
        else:
            single[name] = Found(place, holder, name, False, {0: path})
    return single | {name: Found(place, holder, name, True, dict(sorted(of.items()))) for name, of in by_step.items()}


def evenly_first(count: int) -> list[int]:
    """Return the places of a series in the order in which they are shown while there is room: the last, the first, and
    then those halfway between.

    >>> evenly_first(7)
    [6, 0, 3, 2, 4, 1, 5]
    """
    order = dict.fromkeys([count - 1])
    parts = 1
    while len(order) < count:
        order |= dict.fromkeys(round((count - 1) * part / parts) for part in range(parts + 1))
        parts *= 2
    return [*order]


def _in_order(found: Sequence[Found]) -> list[tuple[int, str]]:
    """Return the places of the series and the paths of all pictures: the first of every series before more of any."""
    orders = [evenly_first(len(one.paths)) for one in found]
    return [
        (place, [*found[place].paths.values()][order[rank]])
        for rank in range(max(map(len, orders), default=0))
        for place, order in enumerate(orders)
        if rank < len(order)
    ]


def _inlined(found: Sequence[Found]) -> tuple[dict[str, str], list[str]]:
    """Return data addresses by the address of the artifact, and names of pictures that could not be read.

    It ends where there is no room even for the smallest copy, so that nothing is downloaded in vain. The copies of a
    series do not grow from one step to the next: the picture on the page would jump.
    """
    inlined, unread = dict[str, str](), list[str]()
    wanted, room, best = _in_order(found), ROOM, [0] * len(found)
    for number, (place, path) in enumerate(bar(wanted, "pictures", unit="picture")):
        holder = found[place].holder
        try:
            picture = tracking.opened(holder, path)
        except NfaError:
            unread.append(f"{path} of run {holder.info.run_id[:12]}")
            continue
        best[place], data = _copy(picture, best[place], share=room // (len(wanted) - number))
        if len(data) > room:
            break
        inlined[tracking.artifact_address(holder, path)] = data
        room -= len(data)
    return inlined, unread


def _copy(picture: Any, best: int, share: int) -> tuple[int, str]:
    """Return the place and the data address of the first copy from `best` on that takes at most its share of the room,
    or of the last.
    """
    for place in range(best, len(COPIES)):
        data = HEAD + base64.b64encode(_webp(picture, *COPIES[place])).decode("ascii")
        if len(data) <= share:
            break
    return place, data


def _webp(picture: Any, longest: int, quality: int) -> bytes:
    scale = min(1.0, max(longest / max(picture.size), READABLE))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    file = io.BytesIO()
    picture.resize((width, height)).save(file, format="WEBP", quality=quality, method=2)  # 4 takes twice as long
    return file.getvalue()


def _about_runs(entries: Sequence[PictureSeries], shown: Sequence[int]) -> Iterator[str]:
    others = [one for one in entries if one["run"] not in shown]
    if others:
        links = counted(sum(len(one["steps"]) for one in others), "picture")
        more = counted(len({one["run"] for one in others}), "more run")
        yield f"The page holds pictures of {MOST_RUNS} runs; {links} of {more} are links to the artifacts."


def _about_room(entries: Sequence[PictureSeries], shown: Sequence[int], unread: int) -> Iterator[str]:
    inside = [inlined for one in entries if one["run"] in shown for inlined in one["inlined"]]
    if links := inside.count(False) - unread:
        most = f"The page holds at most {ROOM // 10**6} MB of pictures"
        yield f"{most}; {links:,} of {counted(len(inside), 'picture')} are links to the artifacts."


def _about_unread(unread: Sequence[str]) -> Iterator[str]:
    if unread:
        named = ", ".join([*unread[:MOST_NAMED], "…"] if len(unread) > MOST_NAMED else unread)
        yield f"{counted(len(unread), 'picture')} could not be read; links are in their place: {named}."
