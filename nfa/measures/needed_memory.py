"""The memory that the matrices of sites take, before they are measured."""

from collections.abc import Mapping

from nfa.maths.example_matrices import MANY
from nfa.measures.first_examples import BYTES, FEWEST, MOST, MOST_OF_ALL_OUTPUTS
from nfa.measures.outer_sums import stays_rows
from nfa.measures.sides import PulledBack
from nfa.observe.site_shapes import SiteShape

TWICE = 2  # what is added up, and what is made of it
PRODUCTS = 4  # in float64 at a time
POWERS = 8  # matrices on the smaller side of one site: products, powers and, in float64, eigenvectors


def needed_memory(
    shapes: Mapping[str, SiteShape], wanted: frozenset[str], examples: int, directions: int, *, width: int = 4
) -> dict[str, float]:
    """Return the bytes of the matrices of each site, and of what relations and levels of one site need beside them.

    Args:
        shapes: The shapes of the sites.
        wanted: The names of the matrices.
        examples: The number of examples.
        directions: The number of random directions; 0 for all outputs.
        width: The bytes of a number.

    Returns:
        The bytes by site, and those of the levels of the site that needs most, since one follows another.
    """
    found = {name: float(width * _numbers(shape, wanted, examples, directions)) for name, shape in shapes.items()}
    rotated = {"out_h", "out_m", "h"} <= wanted  # H is formed for the shared-weights level of H′ and M′
    levels = [
        POWERS * min(of.outputs, of.inputs) ** 2 + of.outputs * of.inputs + rotated * of.inputs**2
        for of in shapes.values()
    ]
    return found | {"levels": float(width * max(levels, default=0))}


def memory_of_examples(
    shapes: Mapping[str, SiteShape], wanted: frozenset[str], examples: int, passes: int, *, width: int = 4
) -> float:
    """Return the bytes of the rows of single examples, from which standard errors follow.

    Args:
        shapes: The shapes of the sites.
        wanted: The names of the matrices.
        examples: The number of examples.
        passes: The number of backward passes for AGOP.
        width: The bytes of a number.

    Returns:
        The bytes, all sites together.
    """
    most = {"agop": MOST_OF_ALL_OUTPUTS}
    found = 0
    for shape in shapes.values():
        o, i = shape.outputs, shape.inputs
        rows = {"agop": passes * _side(o, i), "g": o, "h": i, "out_h": o, "fact": o + i}
        for name in wanted & rows.keys():
            each = width * shape.positions * rows[name]
            found += each * min(examples, most.get(name, MOST), max(FEWEST, BYTES // each))
    return float(found)


def memory_of_errors(shapes: Mapping[str, SiteShape]) -> float:
    """Return the bytes of products of all pairs of rows of single examples, of the site that needs most.

    Args:
        shapes: The shapes of the sites.

    Returns:
        The bytes.
    """
    return 8.0 * PRODUCTS * max((min(MANY, MOST * of.positions**2) for of in shapes.values()), default=0)


def _side(o: int, i: int) -> int:
    return i if PulledBack.cost(o, i) < o * o else o


def _numbers(shape: SiteShape, wanted: frozenset[str], examples: int, directions: int) -> int:
    o, i, rows = shape.outputs, shape.inputs, examples * shape.positions
    sizes = {
        "agop": TWICE * _side(o, i) ** 2 * max(1, directions) + (0 if directions or o > 2 * i else o * o),
        "g": TWICE * _side(o, i) ** 2,
        "out_g": TWICE * _outer(o, rows),
        "h": TWICE * _outer(i, rows),
        "out_h": TWICE * _outer(o, rows),
        "fact": o * i + (i * i if i < 2 * o else 2 * o * i + 4 * o * o),
        "nfm": i * i if i < o else 0,
        "out_m": o * o if o < i else 0,
        "nfm_init_removed": 2 * o * i,
    }
    return o * i + sum(sizes[name] for name in wanted)


def _outer(features: int, rows: int) -> int:
    return features * (rows if stays_rows(rows, features) else features)
