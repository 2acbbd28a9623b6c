"""Shared-weights levels that have no closed form: overlaps, exponents, centred entries, and the square root of AGOP.

Every rotation is made and decomposed, so these levels exist only where W has few singular values.
"""

import torch
from torch import Tensor

from nfa.maths import rotated_relations
from nfa.maths.chance import Level
from nfa.maths.congruence import PairedMean
from nfa.maths.rotated_relations import AFFORDABLE, Other, Rotated, Values
from nfa.maths.similarity import Similarity
from nfa.maths.spectrum import CUTOFF, leading
from nfa.relations import Relation
from nfa.studies.shared_levels import SharedLevels


class RotatedLevels:
    """The levels of one site.

    Args:
        shared: What is known of the weights of the site.
        centred: Whether similarities centre entries.
        root: Whether AGOP is replaced by its square root.
        top_k: The dimension of the subspaces whose overlap is computed.
    """

    def __init__(self, shared: SharedLevels, *, centred: bool, root: bool, top_k: int) -> None:
        self.shared, self.centred, self.root, self.top_k = shared, centred, root, top_k

    def level(self, relation: Relation) -> Level | None:
        """Return the level of a relation that has W on both sides.

        Args:
            relation: The relation.

        Returns:
            The level; None where it is undefined, in one dimension, and where W has more than 64 singular values.
        """
        name, other = relation.matrices
        if self.shared.c.ratio > AFFORDABLE:  # there are at least so many singular values
            return None
        values, _ = self.shared.spectrum
        if not 0 < len(values) <= AFFORDABLE or self.shared.means[other].size > 16 * AFFORDABLE:
            return None
        return self._of_pairs(relation) if name == "fact" else self._of_core(relation, name, other)

    def _of_core(self, relation: Relation, name: str, other: str) -> Level | None:
        values, _ = self.shared.spectrum
        core, basis = self._core(name), self._basis(name)
        if core is None or len(core) < 2 or not core.isfinite().all():
            return None
        counted = values > CUTOFF * values[0] if relation.kind == "exponent" else values > 0
        values, basis = values[counted], basis[:, counted]
        compared = self._other(other, basis)
        if relation.kind == "overlap" and (compared is None or self.top_k > len(values)):
            return None

        def measure(rows: Tensor) -> Values:
            turned = rotated_relations.rotated(rows, core, values)
            return self._measured(relation, turned, compared, values)

        return rotated_relations.rotations(len(values), len(core), measure)

    def _of_pairs(self, relation: Relation) -> Level | None:
        """Rotate P of FACT; its matrices do not stay in the range of W, so that they are dense."""
        fact, (values, _) = self.shared.means["fact"], self.shared.spectrum
        assert isinstance(fact, PairedMean)
        if fact.size > AFFORDABLE:
            return None
        unit = torch.eye(fact.size, dtype=torch.float64, device=fact.pairs.device)
        basis, compared = self._basis("fact"), self._other("nfm", unit)
        if relation.kind == "overlap" and (compared is None or self.top_k > fact.size):
            return None

        def measure(rows: Tensor) -> Values:
            return self._measured(relation, rotated_relations.paired(rows, fact.pairs, values, basis), compared, values)

        return rotated_relations.rotations(len(values), len(fact.pairs), measure)

    def _measured(self, relation: Relation, turned: Rotated, other: Other | None, values: Tensor) -> Values:
        if self.root and "agop" in relation.matrices:
            turned = rotated_relations.square_roots(turned)
        if relation.kind == "exponent":
            return rotated_relations.exponents(turned, values)
        assert other is not None
        if relation.kind == "overlap":
            return rotated_relations.overlaps(turned, other)
        return rotated_relations.cosines(turned, other, centred=self.centred)

    def _core(self, name: str) -> Tensor | None:
        """Return what is rotated: S, or H where z = W h without a bias."""
        if name != "out_h":
            estimates = self.shared.estimates(name)
            return estimates[0] if len(estimates) == 1 else None
        return self.shared.means["h"].dense() if self.shared.without_bias else None

    def _basis(self, name: str) -> Tensor:
        """Return the singular vectors of W on the side of the matrices [i, r], or [o, r] for those of outputs."""
        values, vectors = self.shared.spectrum
        if (name == "out_h") is not self.shared.is_narrow:
            return vectors
        side = self.shared.means["out_m" if name == "out_h" else "nfm"].factor
        assert side is not None
        return side.double().T @ vectors / values.sqrt()

    def _other(self, name: str, basis: Tensor) -> Other | None:
        """Return the matrix that is compared with; None where its leading subspace is undefined."""
        matrix = self.shared.means[name]
        found = leading(matrix, self.top_k, self.shared.similarity) if self.top_k <= matrix.size else None
        vectors = basis[:, :0] if found is None else found[1]
        if found is not None and float(found[0][-1].abs()) <= CUTOFF * float(found[0][0].abs()):
            vectors = basis[:, :0]
        centre = Similarity("entry" if self.centred else "none")
        matrix = matrix.double()
        inside = basis.T @ matrix.times(basis)
        mean = float(matrix.sum()) / matrix.size**2
        squared = centre.inner(matrix, matrix)
        return Other(inside, basis.T @ vectors, squared, mean, basis.sum(dim=0), matrix.size)
