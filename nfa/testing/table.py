"""What a conformance check has found, as rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from nfa.plain_text import aligned

HEADS = ("study", "quantity", "precision", "compared", "difference", "allowed", "")


@dataclass(frozen=True)
class CheckRow:
    """A quantity of a study beside its reference.

    `compared` counts sites, parameters or parts of a state. `difference` is the largest among them, relative; infinite
    where a value is there on one side only, and where the study raised. `note` says where it is, or what was raised.
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
        return self.difference <= self.tolerance

    def cells(self) -> tuple[str, ...]:
        """As they are printed."""
        said = "ok" if self.ok else f"DIFFERS {self.note}".strip()
        numbers = str(self.compared), f"{self.difference:.1e}", f"{self.tolerance:g}"
        return self.study, self.quantity, self.precision, *numbers, said


@dataclass(frozen=True)
class Conformance:
    """All rows; sites of the reference that the studies do not see; sites that they see and the reference does not."""

    rows: Sequence[CheckRow]
    seen: Sequence[str]
    unseen: Sequence[str]
    unchecked: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether every row is; what is not seen is said, and is no fault."""
        return all(row.ok for row in self.rows)

    def largest(self, study: str, precision: str) -> float | None:
        """The largest difference in a study's rows of one precision; None where there are none."""
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
