"""An analysis that needs more memory than is free is refused before it starts, and says what to do."""

import dataclasses
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa import memory
from nfa.analyses.alignment import Analysis
from nfa.analyses.gradient_directions import GradientAnalysis
from nfa.analyses.parameters import AlignmentParameters, DirectionsParameters
from nfa.errors import Refusal
from nfa.maths.example_matrices import OuterProducts, PairedProducts, _parts
from nfa.maths.similarity import Similarity
from nfa.maths.standard_errors import SampleMean, mean_of
from nfa.measures.gradient_gram import BUDGET, GradientGram
from nfa.measures.gradient_store import GradientStore
from nfa.measures.needed_memory import memory_of_examples, needed_memory
from nfa.measures.site_matrices import SiteMeasures
from nfa.observe.door import few_of, find_sites
from nfa.observe.site_shapes import SiteShape, site_shapes
from nfa.relations import MATRICES
from nfa.workloads.probe import Probe
from tests.support.toy_models import Sequences, layers, seeded, tensors_in, tiny_classifier, toy

CPU = torch.device("cpu")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Say how many bytes the machine has free, and how many the limit of a container leaves."""

    def told(machine: int, limit: int | None = None, used: int = 0, cache: int = 0) -> None:
        (tmp_path / "meminfo").write_text(f"MemTotal: {2**40} kB\nMemAvailable: {machine // 1024} kB\n")
        files = {"memory.max": "max" if limit is None else limit, "memory.current": used}
        for name, value in {**files, "memory.stat": f"anon 5\ninactive_file {cache}"}.items():
            (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.setattr(memory, "MEMORY", tmp_path / "meminfo")
        monkeypatch.setattr(memory, "LIMITS", tmp_path)

    return told


def test_what_is_free_is_the_less_of_what_the_machine_and_the_container_have(free):
    free(2**30)
    assert memory.free_memory(CPU) == 2**30
    free(2**30, limit=2**29, used=2**28, cache=2**27)
    assert memory.free_memory(CPU) == 2**29 - 2**28 + 2**27
    free(2**30, limit=2**40)
    assert memory.free_memory(CPU) == 2**30


def test_a_system_that_does_not_say_what_is_free_has_all_its_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "nothing")
    monkeypatch.setattr(memory, "LIMITS", tmp_path / "nothing")
    assert memory.free_memory(CPU) >= 2**30
    monkeypatch.setattr(memory.os, "sysconf", lambda _: -1, raising=False)
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.free_memory(CPU) is None
    memory.check_free_memory({"all": 2.0**80}, CPU, "everything", "less")


def test_the_refusal_names_what_is_needed_what_is_free_and_the_largest_parts_first(free):
    free(3 * 2**30)
    needed = {"a": 2.0**20, "b": 2.0**33, "c": 2.0**31, "d": 2.0**22}
    with pytest.raises(Refusal) as refused:
        memory.check_free_memory(needed, CPU, "the matrices of 4 sites", "fewer sites")
    assert "about 10.0 GB of memory are needed (b 8.0 GB, c 2.0 GB, d 4.0 MB)" in str(refused.value)
    assert "the 3.0 GB that are free here" in str(refused.value)
    assert refused.value.exit_code == 2
    memory.check_free_memory({"c": 2.0**31}, CPU, "one", "nothing")


def test_an_analysis_is_refused_before_any_example_is_measured_and_names_what_helps(free, monkeypatch):
    workload = tiny_classifier()
    free(1024)
    monkeypatch.setattr(SiteMeasures, "__init__", lambda *_, **__: pytest.fail("work has started"))
    with pytest.raises(Refusal, match=r"(?s)2 sites for 48 examples.*sites=!.*relations.*max_samples"):
        Analysis(workload, workload.model(), AlignmentParameters(), None)


def test_gradients_of_too_many_examples_are_refused_before_any_is_computed(free, monkeypatch):
    workload = tiny_classifier()
    free(10 * 8 * 48**2 - 1)
    monkeypatch.setattr(GradientGram, "__init__", lambda *_, **__: pytest.fail("work has started"))
    with pytest.raises(Refusal, match=r"(?s)gradients of 48 examples.*matrices of all pairs.*a smaller n"):
        GradientAnalysis(workload, workload.model(), DirectionsParameters(n=48))


def wide(inputs: int, examples: int = 40) -> tuple[Probe, nn.Module]:
    """A network with few layers, whose gradients are large."""
    net = seeded(layers, inputs, 64, 3).float()
    drawn = torch.randn(examples, inputs, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(examples) % 3
    return Probe(net, partial(F.cross_entropy, reduction="none"), drawn, targets), net


def opened(n: int, inputs: int = 2048, **asked: Any) -> GradientAnalysis:
    return GradientAnalysis(*wide(inputs), DirectionsParameters(n=n, sketch="none", **asked))


def test_a_small_model_is_not_refused_because_of_a_budget_that_it_never_uses(free):
    free(2**22)
    analysis = opened(40, inputs=8)
    assert analysis.gram.budget <= 2**21
    assert sum(analysis.gram.memory(analysis.workload.network).values()) < 2**18


def test_less_memory_means_more_passes_of_the_same_gradients_and_only_the_least_is_refused(free):
    free(2**33)
    whole = opened(40)
    free(2**20)
    little = opened(40)
    assert little.gram.budget < whole.gram.budget == BUDGET
    net = whole.workload.network
    K = whole.gram(net)
    torch.testing.assert_close(little.gram(net), K, rtol=0, atol=1e-6 * float(K.max()))
    assert little.gram.work.examples > whole.gram.work.examples
    free(10 * 8 * 40**2 + 2**12)
    with pytest.raises(Refusal, match=r"(?s)gradients of 40 examples.*(one pass|gradients) .*2\. fewer parameters"):
        opened(40)


def test_gradients_are_checked_on_their_device_and_matrices_of_all_pairs_on_the_processor(monkeypatch):
    asked: list[tuple[str, set[str]]] = []
    analysis = opened(40)
    monkeypatch.setattr(
        "nfa.analyses.gradient_directions.check_free_memory", lambda of, where, *_: asked.append((where.type, {*of}))
    )
    held = {"gradients": 1.0, "one pass": 1.0}
    analysis._check_memory(held, torch.device("meta"))
    analysis._check_memory(held, CPU)
    pairs = "matrices of all pairs"
    assert asked == [("cpu", {pairs}), ("meta", {*held}), ("cpu", {*held, pairs})]


@pytest.mark.parametrize("budget", [2**31, 2**17])
@pytest.mark.parametrize("inputs", [24, 2048])
@pytest.mark.parametrize("at_once", [8, 512])
def test_a_store_never_holds_more_than_was_said(monkeypatch, budget, inputs, at_once):
    monkeypatch.setattr("nfa.measures.gradient_gram.MOST", at_once)
    probe, net = wide(inputs)
    gram = GradientGram(probe, range(37), [name for name, _ in net.named_parameters()], budget=budget)
    said, alive, most = gram.memory(net)["gradients"], weakref.WeakSet(), [0]
    put = GradientStore.put

    def counted(store: GradientStore, *given: Any) -> None:
        alive.add(store)
        put(store, *given)
        kept = [part for one in alive for _, of in one._kept for parts in of.values() for part in parts]
        tables = [t for one in alive for t in one.tables.memory + one.tables._used]
        tensors = [t for part in kept for t in part.tensors] + tables + gram._used
        held = {t.data_ptr(): t.numel() * t.element_size() for t in tensors}
        most[0] = max(most[0], sum(held.values()))

    monkeypatch.setattr(GradientStore, "put", counted)
    for _ in range(2):
        gram(net)
    assert 0 < most[0] <= 1.05 * said
    assert gram.work.passes == 1 or said / 2 < most[0]  # what is not kept takes less, where parameters are small


def test_an_analysis_that_fits_is_not_refused_and_fewer_sites_or_examples_make_it_fit(monkeypatch):
    needed: list[float] = []
    monkeypatch.setattr("nfa.analyses.alignment.check_free_memory", lambda of, *_: needed.append(sum(of.values())))
    workload, plain = tiny_classifier(), AlignmentParameters()
    for changed in ({}, {"sites": "layer_1"}, {"max_samples": 6}, {"relations": "h_vs_m"}, {"precision": "float64"}):
        Analysis(workload, workload.model(), dataclasses.replace(plain, **changed), None)
    whole, fewer_sites, fewer_examples, fewer_relations, double = needed
    assert max(fewer_sites, fewer_examples, fewer_relations) < whole
    assert whole < double <= 2 * whole  # standard errors take float64 anyway


@pytest.mark.parametrize("build", [lambda: seeded(layers, 40, 30, 20, 4), lambda: seeded(layers, 10, 70, 9, 3)])
@pytest.mark.parametrize("n", [8, 60])
@pytest.mark.parametrize("wanted", [frozenset(MATRICES), frozenset({"agop", "nfm", "g", "h"}), frozenset({"out_h"})])
def test_matrices_take_what_was_said_or_less_but_not_much_less(build, n, wanted):
    net = build()
    toys = toy(net, n, net[0].in_features, sites=["0", "2"])
    sites = find_sites(toys.net, toys, few_of(toys))
    shapes = site_shapes(toys.net, toys, few_of(toys), sites, ["0", "2"])
    initial = {name: net.get_submodule(name).weight.detach() / 2 for name in ("0", "2")}
    measures = SiteMeasures(toys, ["0", "2"], wanted, initial=initial, errors=True)
    found = measures(toys.net, toys.batches("train", batch_size=16))
    said = needed_memory(shapes, wanted, n, 0, width=8)
    for site, of_site in found.items():
        held = {id(one): one for of in of_site.values() for one in tensors_in(mean_of(of))}
        taken = sum(one.numel() * 8 for one in held.values())
        assert taken <= said[site] <= 4 * taken + 8 * initial[site].numel()
    kept = [one.examples for of_site in found.values() for one in of_site.values() if isinstance(one, SampleMean)]
    rows: dict[int, Tensor] = {t.data_ptr(): t for of in kept for t in tensors_in(of) if t.ndim == 3}
    taken = sum(one.numel() * 8 for one in rows.values())
    assert taken <= memory_of_examples(shapes, wanted, n, net[-1].out_features, width=8) <= 2 * taken


def test_shapes_are_those_of_the_sites_and_positions_of_all_uses_count():
    toys = toy(seeded(Sequences, 3, 5, 2), 6, 4, 3, sites=["first", "second", "readout"])
    sites = find_sites(toys.net, toys, few_of(toys))
    found = site_shapes(toys.net, toys, few_of(toys), sites, list(sites.seen))
    assert found == {"first": SiteShape(5, 3, 4), "second": SiteShape(5, 5, 4), "readout": SiteShape(2, 5, 1)}


def test_outputs_of_50257_need_less_than_2_gb_for_few_examples_and_more_than_20_for_many():
    shapes, wanted = {"readout": SiteShape(50257, 768, 1)}, frozenset({"out_g", "out_h", "out_m"})
    assert sum(needed_memory(shapes, wanted, 256, 0).values()) < 2**30
    assert sum(needed_memory(shapes, wanted, 30_000, 0).values()) > 20 * 2**30


@pytest.mark.parametrize("kind", [OuterProducts, PairedProducts])
@pytest.mark.parametrize("positions", [7, 24])
def test_products_of_single_examples_are_the_same_by_parts(monkeypatch, kind, positions):
    random = torch.Generator().manual_seed(1)
    rows, others = (torch.randn(10, positions, 30, generator=random) for _ in range(2))
    numbers, similarity = torch.arange(10), Similarity("entry")
    one = kind(rows, None, numbers) if kind is OuterProducts else kind(rows, others, torch.eye(30), numbers)

    def products() -> tuple[Tensor, Tensor]:
        return one.each(one, similarity), one.every(one, similarity, numbers[2:9])

    whole = products()
    monkeypatch.setattr("nfa.maths.example_matrices.MANY", 3 * positions**2)
    for found, expected in zip(products(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert all(part.shape[0] == 3 for part, _ in list(_parts(rows, rows, positions))[:-1])
