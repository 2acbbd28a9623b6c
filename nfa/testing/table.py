"""The result of a conformance check as rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from nfa.plain_text import aligned

HEADS = ("study", "quantity", "precision", "compared", "difference", "allowed", "")


@dataclass(frozen=True)
class CheckRow:
    """A quantity of a study, compared with its reference.

    Args:
        study: The name of the study.
        quantity: What is compared.
        precision: "float64", "float32", or "bitwise".
        compared: How many sites, parameters or parts of a state are compared.
        difference: The largest relative difference among them; infinite if a value exists on one side only, or if the
            study raised an error.
        tolerance: The largest difference that is allowed.
        note: Where the largest difference is, or what was raised.
    """

    study: str
    quantity: str
    precision: str
    compared: int
    difference: float
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the difference is allowed."""
        return self.difference <= self.tolerance

    def cells(self) -> tuple[str, ...]:
        """Return the cells as they are printed."""
        said = "ok" if self.ok else f"DIFFERS {self.note}".strip()
        numbers = str(self.compared), f"{self.difference:.1e}", f"{self.tolerance:g}"
        return self.study, self.quantity, self.precision, *numbers, said


@dataclass(frozen=True)
class Conformance:
    """The table of a conformance check.

    Args:
        rows: One row for each quantity.
        seen: Linear maps of the reference that the studies see.
        unseen: Linear maps of the reference that the studies do not see.
        unchecked: Sites that the studies see and the reference does not know.
    """

    rows: Sequence[CheckRow]
    seen: Sequence[str]
    unseen: Sequence[str]
    unchecked: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether every row is; a linear map that is not seen is reported, but is not a fault."""
        return all(row.ok for row in self.rows)

    def largest(self, study: str, precision: str) -> float | None:
        """Return the largest difference in a study's rows of one precision; None where there are none."""
        return max(
            (row.difference for row in self.rows if (row.study, row.precision) == (study, precision)), default=None
        )

    def __str__(self) -> str:
        table = [HEADS, *(row.cells() for row in self.rows)]
        known = len(self.seen) + len(self.unseen)
        said = [f"seen: {len(self.seen)} of {known} linear maps; not seen: {', '.join(self.unseen) or 'none'}"]
        if self.unchecked:
            said.append(f"seen, but without a reference: {', '.join(self.unchecked)}")
        return "\n".join([*aligned(table), *said])
