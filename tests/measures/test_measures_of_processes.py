"""What several processes have measured on their shares is, reduced, what one has measured on everything."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from nfa.measures.agop import Agop
from nfa.measures.agop_estimate import AgopEstimate
from nfa.measures.fact import Fact
from nfa.measures.outer_sums import OuterSum
from nfa.measures.second_moments import GradientMoment, InputMoment, OutputMoment
from nfa.measures.site_matrices import Conventions, SiteMeasures
from nfa.observe.directions import Directions
from nfa.observe.passes import observe, site_weights
from nfa.parallel import World
from nfa.relations import MATRICES
from tests.support.toy_models import Sequences, Toy, layers, seeded, tensors_in, toy

CLOSE = {"rtol": 1e-12, "atol": 1e-14}  # float64; only the order of sums differs


class Exchange:
    """Where `size` threads meet as processes would; one that fails lets the others fail too."""

    def __init__(self, size: int) -> None:
        self.items: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def all(self, rank: int, item: Any) -> list[Any]:
        self.items[rank] = item
        self.barrier.wait()
        found = list(self.items)
        self.barrier.wait()
        return found


class Member(World):
    """A `World` whose processes are threads: the same operations, each giving a tensor of this process's own."""

    def __init__(self, rank: int, size: int, exchange: Exchange) -> None:
        super().__init__(rank, size)
        self.exchange = exchange

    def sum(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.exchange.all(self.rank, tensor.clone())).sum(dim=0)

    def broadcast_tensor(self, tensor: Tensor) -> Tensor:
        result: Tensor = self.exchange.all(self.rank, tensor)[0].clone()
        return result

    def gather(self, item: Any) -> list[Any]:
        return self.exchange.all(self.rank, item)


def together(size: int, work: Callable[[World], Any]) -> list[Any]:
    """`work` of each of `size` processes, at the same time."""
    exchange = Exchange(size)

    def of(rank: int) -> Any:
        try:
            return work(Member(rank, size, exchange))
        except BaseException:
            exchange.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(of, range(size)))


TOYS = {
    "input side": lambda: toy(seeded(layers, 3, 20, 4), 13, 3, sites=["0"]),
    "output side": lambda: toy(seeded(layers, 20, 3, 4), 13, 20, sites=["0"]),
    "positions": lambda: toy(seeded(Sequences, 5, 6, 3), 13, 4, 5, sites=["second"]),
    "fewer rows than either side": lambda: toy(seeded(layers, 27, 30, 4), 13, 27, sites=["0"]),
}
MEASURES = {
    "AGOP": Agop,
    "centred AGOP": lambda weight, **options: Agop(weight, centre="jacobian", **options),
    "H": InputMoment,
    "H′": OutputMoment,
    "G": GradientMoment,
    "G′": lambda weight, **options: GradientMoment(weight, output_side=True, **options),
    "FACT": Fact,
}


def measured(toys: Toy, build: Callable[..., Any], ids: list[int], **options: Any) -> Any:
    """A measure of the first site after one pass over the examples `ids`."""
    name = toys.sites_named[0]
    measure = build(toys.net.get_submodule(name).weight.detach(), positions=options.get("positions", "each"))
    batches = toys.batches("train", batch_size=3, ids=ids)
    observe(toys.net, toys, batches, {name: lambda _: [measure]}, directions=options.get("directions", Directions()))
    return measure


def reduced(toys: Toy, build: Callable[..., Any], size: int, **options: Any) -> list[Any]:
    """The same measure in each of `size` processes, over their shares of all examples."""
    ids = list(range(len(toys.inputs)))
    measures = [measured(toys, build, World(rank, size).shard(ids), **options) for rank in range(size)]
    together(size, lambda world: measures[world.rank].reduce(world))
    return measures


def matrices(measure: Any) -> list[Tensor]:
    with_both_sides = isinstance(measure, GradientMoment) and isinstance(measure.sum, OuterSum)
    found = [measure.value(), measure.output_side()] if with_both_sides else [measure.value()]
    return [matrix.dense() for matrix in found]


@pytest.mark.parametrize("positions", ["each", "sum"])
@pytest.mark.parametrize("case", TOYS)
@pytest.mark.parametrize("kind", MEASURES)
def test_shares_reduced_are_the_whole_in_every_process(kind, case, positions):
    """Of 13 examples: shares differ in size, and so do last batches."""
    toys = TOYS[case]()
    whole = matrices(measured(toys, MEASURES[kind], list(range(13)), positions=positions))
    for size in (2, 3):
        for measure in reduced(toys, MEASURES[kind], size, positions=positions):
            for matrix, expected in zip(matrices(measure), whole, strict=True):
                torch.testing.assert_close(matrix, expected, **CLOSE)


@pytest.mark.parametrize("kind", MEASURES)
def test_without_reducing_a_share_is_not_the_whole(kind):
    toys = TOYS["output side"]()
    whole, share = (measured(toys, MEASURES[kind], list(range(n))) for n in (13, 6))
    for matrix, expected in zip(matrices(share), matrices(whole), strict=True):
        assert (matrix - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("kind", MEASURES)
def test_alone_reducing_changes_no_bit(kind):
    toys = TOYS["positions"]()
    measure, expected = (measured(toys, MEASURES[kind], list(range(13))) for _ in range(2))
    measure.reduce(World())
    for matrix, other in zip(matrices(measure), matrices(expected), strict=True):
        assert torch.equal(matrix, other)


@pytest.mark.parametrize("positions", ["each", "sum"])
def test_the_centred_agop_of_several_processes_keeps_its_digits_where_the_jacobian_hardly_varies(positions):
    """A nearly linear network in float32, whose shares have shifts of their own: good to 10⁻³ of the centred part."""
    net = seeded(layers, 4, 12, 2)
    with torch.no_grad():
        net[0].weight.mul_(0.01)
    toys = toy(net, 40, 4, sites=["0"], dtype=torch.float32)
    exact = toy(net, 40, 4, sites=["0"], dtype=torch.float64)  # also makes `net` float64
    expected = matrices(measured(exact, MEASURES["centred AGOP"], list(range(40)), positions=positions))[0]
    toys.net = net.float()
    for measure in reduced(toys, MEASURES["centred AGOP"], 2, positions=positions):
        found = matrices(measure)[0].double()
        assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("positions", ["each", "sum"])
@pytest.mark.parametrize("case", TOYS)
def test_estimates_reduced_are_the_whole_and_know_the_same_examples(case, positions):
    """Shares follow each other, so that the rows kept by two processes are, in order, those kept by one."""
    toys, directions = TOYS[case](), Directions(3, seed=4)

    def build(weight: Tensor, **options: Any) -> AgopEstimate:
        return AgopEstimate(weight, 3, **options)

    options = {"positions": positions, "directions": directions}
    whole = measured(toys, build, list(range(13)), **options).value()
    for measure in reduced(toys, build, 2, **options):
        found = measure.value()
        assert found.count == 13
        assert found.examples.numbers.tolist() == list(range(13))
        for core, expected in zip([*found.cores, found.sample], [*whole.cores, whole.sample], strict=True):
            torch.testing.assert_close(core, expected, **CLOSE)


@pytest.mark.parametrize("directions", [Directions(), Directions(2)], ids=["all outputs", "random directions"])
def test_all_matrices_of_all_sites_at_two_checkpoints_are_those_of_one_process(directions):
    """Through `SiteMeasures`, so that every process takes part in the same operations in the same order."""
    wanted = frozenset(MATRICES)
    toys = toy(seeded(layers, 6, 5, 4, 3), 13, 6, sites=["0", "2", "4"])
    sites = list(toys.sites_named)
    initial = {name: weight / 2 for name, weight in site_weights(toys, toys.net, sites).items()}

    def values(world: World) -> list[dict[str, dict[str, Tensor]]]:
        measures = SiteMeasures(toys, sites, wanted, Conventions(directions=directions), initial, world)
        ids, model = world.shard(list(range(13))), toys.model()
        return [measures(model, toys.batches("train", batch_size=3, ids=ids)) for _ in range(2)]

    expected = values(World())
    for found in together(2, in_turn(values)):
        for checkpoint, other in zip(found, expected, strict=True):
            assert_same_matrices(checkpoint, other)


def in_turn(values: Callable[[World], Any]) -> Callable[[World], Any]:
    """One thread at a time but where they meet: a pass changes what all threads share, such as generators."""
    lock = threading.Lock()

    def run(world: World) -> Any:
        meet = world.exchange.all

        def away(rank: int, item: Any) -> list[Any]:
            lock.release()
            try:
                return meet(rank, item)
            finally:
                lock.acquire()

        world.exchange = type("Away", (), {"all": staticmethod(away), "barrier": world.exchange.barrier})()
        with lock:
            return values(world)

    return run


def assert_same_matrices(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for site, of_site in found.items():
        assert of_site.keys() == expected[site].keys()
        for name, matrix in of_site.items():
            for part, whole in zip(tensors_in(matrix), tensors_in(expected[site][name]), strict=True):
                torch.testing.assert_close(part, whole, **CLOSE)
