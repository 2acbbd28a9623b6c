"""Rows of the first examples of an analysis, from which standard errors follow."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nfa.parallel import World

MOST = 512  # examples that are stored
MOST_OF_ALL_OUTPUTS = 128  # where an example has rows of every output
BYTES = 2**23  # per site and matrix, whatever the number of positions; but at least 32 examples
FEWEST = 32


class FirstExamples:
    """Store rows of the first examples that this process sees, in memory that does not grow with n.

    Args:
        most: The largest number of examples; 0 stores none.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.series: list[list[Tensor]] = []

    def add(self, rows: Float[Tensor, "n s f"], series: int = 0) -> None:
        """Store the rows of a batch, as far as they are among the first; an example may have several series of rows."""
        if not self.most or not len(rows):
            return
        if series == len(self.series):
            self.series.append([])
            affordable = BYTES // (max(1, rows[0].numel()) * rows.element_size() * len(self.series))
            self.most = min(self.most, max(FEWEST, affordable))
        missing = self.most - sum(map(len, self.series[series]))
        if missing > 0:
            self.series[series].append(rows[:missing].detach().clone())

    @property
    def missing(self) -> int:
        """The number of examples whose rows are still to be stored, as far as it is known."""
        return self.most - min(sum(map(len, parts)) for parts in self.series or [[]])

    def collected(
        self, world: World, examples: int
    ) -> tuple[Float[Tensor, "m series s f"], Int[Tensor, " m"]] | None:
        """Return the rows of the analysis's first examples, the same for any number of processes, and their places.

        Args:
            world: The processes.
            examples: The number of examples that this process has seen.

        Returns:
            The rows, padded by zeros, which add nothing, and each example's place in the order of the analysis; None
            where nothing is stored.
        """
        if not self.most:
            return None
        mine = [joined(parts)[: self.most] for parts in self.series if parts]
        device = mine[0].device if mine else torch.device("cpu")
        rows = torch.stack([part.cpu() for part in mine], dim=1) if mine else None
        counts, limits, everyone = zip(*world.gather((examples, self.most, rows)), strict=True)
        shares = [(sum(counts[:rank]), of) for rank, of in enumerate(everyone) if of is not None]
        if not shares:
            return None
        found = [(start, of[: min(limits) - start]) for start, of in shares if start < min(limits)]
        places = [torch.arange(start, start + len(of)) for start, of in found]
        return joined([of for _, of in found]).to(device), torch.cat(places)


def joined(parts: Sequence[Float[Tensor, "n *series s f"]]) -> Float[Tensor, "m *series s f"]:
    """Concatenate the rows of all examples; shorter ones are padded by zeros, which add nothing.

    Args:
        parts: The rows of some examples each [n, ..., s, f].

    Returns:
        The rows of all of them, with as many positions as the longest has.
    """
    longest = max(part.shape[-2] for part in parts)
    return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[-2])) for part in parts])
