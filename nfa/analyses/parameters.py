"""Parameters of the three studies of a model, for stored runs, watched trainings and notebooks alike."""

import re
from dataclasses import dataclass

from nfa.errors import Refusal
from nfa.options import Auto, CheckedOptions, option
from nfa.relations import DEFAULT, choose_relations


@dataclass(frozen=True)
class AlignmentParameters(CheckedOptions):
    """Compare weights, representations and gradients."""

    relations: str = option(",".join(DEFAULT), "what is compared: names, globs, or all (docs/maths.md)")
    sites: str = option("", "sites: names, globs, !glob to leave out, /regex/; empty = all but the readout")
    centre: str = option("none", "subtract the mean entry, or the mean Jacobian", choices=("none", "entry", "jacobian"))
    agop_power: str = option("1", "AGOP or its square root", choices=("1", "0.5"))
    positions: str = option("each", "outer product at each position, or of their sum", choices=("each", "sum"))
    max_samples: int = option(0, "training examples, the first of the stored probe; 0 = all", at_least=0, below=2**31)
    batch_size: int = option(1024, "examples at a time, at most; changes memory, not values", at_least=1, below=2**31)
    precision: str = option(
        "float32", "operands of products; float64 = everything", choices=("float32", "bfloat16", "float64")
    )
    directions: str = option("auto", "output directions: all, a number ≥ 2 of random ones, auto = all up to 32 outputs")
    top_k: int = option(10, "dimensions of the subspaces that are compared", at_least=1, below=2**20)
    seed: int = option(1717, "seed of random output directions", at_least=0, below=2**63)

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
                allowed = "it with all directions: it is not linear in AGOP, so random ones would bias it"
                raise Refusal(got, allowed, "directions=all")


@dataclass(frozen=True)
class DirectionsParameters(CheckedOptions):
    """Compare the directions of per-example gradients."""

    n: int = option(512, "training examples, the first of the stored probe", at_least=2, below=20001)
    unit: str = option("sample", "gradients of examples, or of batches of them", choices=("sample", "batch"))
    batch_size: int = option(32, "examples of a batch where unit=batch", at_least=2, below=2**31)
    loss: str = option("run", "the loss that the run trained on, or the plain one", choices=("run", "plain"))
    sites: str = option(
        "all",
        "parameters: names of sites, modules, parameters; globs, !glob to leave out, /regex/; all = every trained one",
    )
    perplexity: float | Auto = option("auto", "of the t-SNE maps; auto = min(30, (n − 1)/3)", at_least=1, below=10**4)
    seed: int = option(1717, "seed of the bootstrap; maps start from given places", at_least=0, below=2**63)

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

    n: int = option(64, "training examples, the first of the stored probe", at_least=1, below=2**31)
    loss: str = option("run", "the loss that the run trained on, or the plain one", choices=("run", "plain"))
    batch_size: int = option(64, "examples at a time, at most; changes memory, not values", at_least=1, below=2**31)
