"""Parameters of the three studies of a model, for stored runs, watched trainings and notebooks alike."""

import re
from dataclasses import dataclass

from nfa.errors import Refusal
from nfa.options import Auto, CheckedOptions, option
from nfa.relations import DEFAULT, choose_relations

LOSS = "the loss that the run was trained on, or the plain loss without example weights"


@dataclass(frozen=True)
class AlignmentParameters(CheckedOptions):
    """Compare weights, representations and gradients."""

    relations: str = option(",".join(DEFAULT), "relations to compute: names, globs, or all (docs/maths.md)")
    sites: str = option("", "sites to analyse: names, globs, !glob to exclude, /regex/; empty = all but the readout")
    centre: str = option(
        "none",
        "what is subtracted: nothing, the mean entry of each matrix, or the mean Jacobian",
        choices=("none", "entry", "jacobian"),
    )
    agop_power: str = option("1", "power of AGOP; 0.5 is its matrix square root", choices=("1", "0.5"))
    positions: str = option(
        "each", "outer products of each position, or of the sum over positions", choices=("each", "sum")
    )
    max_samples: int = option(
        0, "number of training examples, the first of the stored probe; 0 = all", at_least=0, below=2**31
    )
    batch_size: int = option(
        1024, "largest number of examples at a time; affects memory, not values", at_least=1, below=2**31
    )
    precision: str = option(
        "float32",
        "type of the operands of matrix products; float64 computes everything in float64",
        choices=("float32", "bfloat16", "float64"),
    )
    directions: str = option(
        "auto",
        "output directions that are differentiated: all, a number ≥ 2 of random ones, "
        "or auto = all for up to 32 outputs, otherwise 2 random ones",
    )
    top_k: int = option(10, "dimension of the subspaces whose overlap is computed", at_least=1, below=2**20)
    seed: int = option(1717, "seed of the random output directions", at_least=0, below=2**63)
    chance: bool = option(True, "chance levels, shared-weights levels and standard errors; false leaves them out")

    def __post_init__(self) -> None:
        super().__post_init__()
        choose_relations(self.relations)
        self._check_directions()

    def _check_directions(self) -> None:
        if self.directions in ("auto", "all"):
            return
        if not re.fullmatch(r"[0-9]{1,9}", self.directions) or int(self.directions) < 2:
            remedy = "directions=2; one alone has a biased norm and no standard error"
            raise Refusal(f"directions={self.directions!r}", "auto, all, or a whole number ≥ 2", remedy)
        for name, value in (("centre", "jacobian"), ("agop_power", "0.5")):
            if getattr(self, name) == value:
                got = f"{name}={value} with directions={self.directions}"
                allowed = "directions=all, since it is not linear in AGOP and random directions would bias it"
                raise Refusal(got, allowed, "directions=all")


@dataclass(frozen=True)
class DirectionsParameters(CheckedOptions):
    """Compare the directions of per-example gradients."""

    n: int = option(512, "number of training examples, the first of the stored probe", at_least=2, below=20001)
    unit: str = option("sample", "compare gradients of single examples, or of batches", choices=("sample", "batch"))
    batch_size: int = option(32, "number of examples in a batch, with unit=batch", at_least=2, below=2**31)
    loss: str = option("run", LOSS, choices=("run", "plain"))
    sites: str = option(
        "all",
        "parameters to differentiate: names of sites, modules or parameters, globs, !glob to exclude, /regex/; "
        "all = every trainable one",
    )
    perplexity: float | Auto = option(
        "auto", "perplexity of the t-SNE maps; auto = min(30, (n − 1)/3)", at_least=1, below=10**4
    )
    sketch: str = option(
        "auto",
        "random vectors for each parameter that sketch its gradients: a number ≥ 2, none = exact gradients, or auto = "
        "exact if they fit into the memory, otherwise as many as an error of 0.01 of a cosine needs",
        written=(re.compile("auto|none|[2-9]|[1-9][0-9]{1,4}"), "auto, none, or a whole number from 2 to 99999"),
    )
    chance: bool = option(True, "compute the chance levels of cosines, silhouette and AUC; false leaves them out")
    seed: int = option(
        1717,
        "seed of the bootstrap and the permutations; t-SNE maps start from fixed positions",
        at_least=0,
        below=2**63,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit == "batch" and self.n < 2 * self.batch_size:
            got = f"n={self.n} with unit=batch batch_size={self.batch_size}"
            raise Refusal(got, "at least two whole batches", f"n={16 * self.batch_size}, or a smaller batch_size")
        if self.perplexity != "auto" and self.perplexity >= self.units:
            got, allowed = f"perplexity={self.perplexity} for {self.units} gradients", f"a number below {self.units}"
            raise Refusal(got, allowed, "perplexity=auto")

    @property
    def units(self) -> int:
        """How many gradients are compared."""
        return self.n // self.batch_size if self.unit == "batch" else self.n


@dataclass(frozen=True)
class FlowParameters(CheckedOptions):
    """Measure the mean gradient in each part of a model."""

    n: int = option(64, "number of training examples, the first of the stored probe", at_least=1, below=2**31)
    loss: str = option("run", LOSS, choices=("run", "plain"))
    batch_size: int = option(
        64, "largest number of examples at a time; affects memory, not values", at_least=1, below=2**31
    )
