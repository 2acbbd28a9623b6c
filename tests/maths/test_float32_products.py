"""full_float32(): nothing is rounded inside, and PyTorch's settings are as before, however they were made."""

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

import nfa
from nfa.maths.float32_products import full_float32
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.measures.site_matrices import Conventions, SiteMatrices, SiteMeasures
from nfa.relations import needed
from nfa.studies.alignment import alignment
from nfa.studies.gradient_directions import ProbeExamples, gradient_directions
from nfa.workloads.probe import Probe
from tests.support.toy_models import seeded

OF: Any = torch.backends
PARTS = [OF, OF.cudnn, OF.cuda.matmul, OF.cudnn.conv, OF.cudnn.rnn, OF.mkldnn, OF.mkldnn.matmul, OF.mkldnn.conv]
UNREADABLE = "cannot be read"
OLDER: list[Callable[[], Any]] = [
    torch.get_float32_matmul_precision, lambda: OF.cuda.matmul.allow_tf32, lambda: OF.cudnn.allow_tf32,
]  # fmt: skip
CHANGES: dict[str, Callable[[], Any]] = {
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "no convolutions": lambda: setattr(OF.cudnn, "allow_tf32", False),
    "products on GPUs": lambda: setattr(OF.cuda.matmul, "allow_tf32", True),
    "everything": lambda: setattr(OF, "fp32_precision", "tf32"),
    "newer attribute": lambda: setattr(OF.cuda.matmul, "fp32_precision", "tf32"),
    "newer attribute, off": lambda: setattr(OF.cudnn.conv, "fp32_precision", "ieee"),
    "of a processor": lambda: setattr(OF.mkldnn.matmul, "fp32_precision", "bf16"),
}


def settings() -> list[Any]:
    return [part.fp32_precision for part in PARTS]


def readable() -> list[Any]:
    found: list[Any] = []
    for read in OLDER:
        try:
            found.append(read())
        except RuntimeError:
            found.append(UNREADABLE)
    return found


def to_defaults() -> None:
    for part, value in zip(PARTS, ["none", "none", "none", "tf32", "tf32", "none", "none", "none"], strict=True):
        part.fp32_precision = value
    torch.set_float32_matmul_precision("highest")
    OF.cudnn.allow_tf32 = True


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    to_defaults()
    yield
    to_defaults()


def test_nothing_is_rounded_inside_and_every_setting_is_as_before_whichever_way_it_was_made() -> None:
    for made in [(), *((name,) for name in CHANGES), *permutations(CHANGES, 2)]:
        to_defaults()
        for name in made:
            CHANGES[name]()
        before = settings(), readable()
        with full_float32():
            assert set(settings()) <= {"none", "ieee"}, made
            told = [now for was, now in zip(before[1], readable(), strict=True) if was != UNREADABLE]
            assert set(told) <= {False, "highest"}, made  # what could be read still can
        assert (settings(), readable()) == before, made


def test_settings_are_as_before_after_an_error() -> None:
    torch.set_float32_matmul_precision("medium")
    before = settings()
    with pytest.raises(ZeroDivisionError), full_float32():
        _ = 1 / 0
    assert settings() == before


MULTIPLY = {"linear", "conv2d", "matmul", "bmm", "mm", "addmm", "addmm_", "einsum", "__matmul__", "__rmatmul__"}


class Products(TorchFunctionMode):
    """What PyTorch was set to at every function but those that only read."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        if name in MULTIPLY:
            self.seen.setdefault(name, set()).add((torch.get_float32_matmul_precision(), OF.cudnn.allow_tf32))
        return func(*args, **(kwargs or {}))


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3))


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def probe() -> tuple[Tensor, Tensor]:
    return torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


def values(study: Any, setting: str) -> list[tuple[str, float]]:
    torch.set_float32_matmul_precision(setting)
    return [(row.key, row.value) for row in study(seeded(net), losses, probe())]


@pytest.mark.parametrize("study", [nfa.alignment, nfa.gradient_directions, nfa.gradient_flow])
def test_every_study_measures_in_full_precision_whatever_is_set_around_it(study: Any) -> None:
    exact = values(study, "highest")
    with Products() as products:
        assert values(study, "medium") == exact
    assert {"linear", "conv2d"} <= set(products.seen)
    assert set.union(*products.seen.values()) == {("highest", False)}
    assert torch.get_float32_matmul_precision() == "medium"
    assert OF.cudnn.allow_tf32


def workload() -> Probe:
    return Probe(seeded(net), losses, *probe())


def gram() -> Tensor:
    own = workload()
    return GradientGram(own, own.ids("train"), choose_parameters(own, own.model()))(own.model())


def matrices() -> SiteMatrices:
    own = workload()
    measures = SiteMeasures(own, ["0", "3"], needed(("agop_nfm", "g_vs_h")), Conventions("jacobian"))
    return measures(own.model(), own.batches("train", batch_size=8))


def directions(of: Tensor) -> Any:
    return gradient_directions(of, ProbeExamples(torch.rand(12), probe()[1]), seed=0)


def relations(of: SiteMatrices) -> Any:
    return alignment(of, ("agop_nfm", "g_vs_h"))


@pytest.mark.parametrize(
    ("before", "study"),
    [(tuple, lambda _: gram()), (tuple, lambda _: matrices()), (matrices, relations), (gram, directions)],
    ids=["Gram matrix", "matrices", "relations", "directions"],
)
def test_parts_of_studies_alone_do_so_too(before: Callable[[], Any], study: Callable[[Any], Any]) -> None:
    given = before()
    torch.set_float32_matmul_precision("medium")
    with Products() as products:
        study(given)
    assert set.union(*products.seen.values()) == {("highest", False)}
