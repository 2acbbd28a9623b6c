"""What every workload promises, whichever it is: what it says of an example depends on that example alone.

Every measure and every study works on every one of them.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.utils.data import TensorDataset

import nfa
from nfa.maths.congruence import Congruence
from nfa.maths.exact_losses import negative_log_likelihood
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.measures.mean_gradient import mean_gradient
from nfa.measures.parameter_groups import relative_changes, root_mean_squares
from nfa.measures.site_matrices import Conventions, SiteMatrices, SiteMeasures
from nfa.observe.directions import Directions
from nfa.observe.passes import site_weights
from nfa.relations import MATRICES, OF_ANY_MODEL, RELATIONS
from nfa.studies.alignment import AlignmentOptions, alignment
from nfa.studies.gradient_directions import ProbeExamples as Probed
from nfa.studies.gradient_directions import gradient_directions
from nfa.studies.gradient_flow import gradient_flow
from nfa.workload import Batch, Workload
from nfa.workloads.probe import Probe
from tests.support.eeg_trainings import tiny_decoder
from tests.support.language_models import tiny_language
from tests.support.toy_models import Sequences, choose_sites, half_square, layers, seeded, tiny_classifier, toy


def labelled() -> Workload:
    """The workload of `train`, with some labels changed."""
    clean = tiny_classifier()
    ids = {**clean.example_ids, "noisy": [4, 7], "noisy_labels": [0, 2]}
    return type(clean)(clean.config, clean.data, ids)


def own() -> Workload:
    """A model and examples of one's own."""
    random = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(20, 4, generator=random), torch.randn(20, 3, generator=random)
    return Probe(seeded(layers, 4, 5, 3), half_square, inputs, targets)


def supervised() -> Workload:
    """A function that makes a model, and datasets."""
    random = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(48, 4, generator=random), torch.arange(48) % 3)
    return nfa.Supervised(
        model=lambda: layers(4, 5, 3), loss=negative_log_likelihood, train=data, val=data, device="cpu"
    )


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "classifier": tiny_classifier,
    "classifier with wrong labels": labelled,
    "decoder": tiny_decoder,
    "language model with an adapter": tiny_language,
    "language model in full": lambda: tiny_language("full"),
    "probe": own,
    "supervised": supervised,
    "toy": lambda: toy(seeded(Sequences, 4, 6, 3), 20, 3, 4, sites=["first", "second"]),
}
WITH_CLASSES = {"classifier", "classifier with wrong labels", "supervised"}


@pytest.fixture(params=WORKLOADS)
def named(request: pytest.FixtureRequest) -> tuple[str, Workload]:
    return request.param, WORKLOADS[request.param]()


def test_it_is_one(named: tuple[str, Workload]) -> None:
    assert isinstance(named[1], Workload)


def test_every_example_has_one_loss_and_one_value_of_each_metric(named: tuple[str, Workload]) -> None:
    _, workload = named
    batch, model = next(workload.batches("train", batch_size=7)), workload.model()
    outputs = workload.outputs(model, batch)
    assert len(outputs) == len(workload.losses(outputs, batch)) == 7
    assert all(values.shape == (7,) for values in workload.metrics(outputs, batch).values())


def test_a_parameter_is_in_one_group_at_most_and_front_back_and_output_are_groups(named: tuple[str, Workload]) -> None:
    name, workload = named
    model = workload.model()
    groups = workload.groups(model)
    grouped = [parameter for names in groups.names.values() for parameter in names]
    trained = {parameter for parameter, weight in model.named_parameters() if weight.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= trained
    assert {groups.front, groups.back, groups.output} <= {*groups.names, None}
    assert (groups.output is None) is name.startswith("language")  # whose readout is not trained
    if name in ("decoder", "classifier") or groups.output is None:
        assert set(grouped) == trained


def test_models_are_the_same_at_every_call(named: tuple[str, Workload]) -> None:
    first, second = (named[1].model().state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_classes_are_one_whole_number_an_example_or_none_at_all(named: tuple[str, Workload]) -> None:
    name, workload = named
    whole = next(workload.batches("train", batch_size=20))
    found = workload.classes(whole)
    assert (found is not None) is (name in WITH_CLASSES)
    if found is not None:
        assert found.shape == (20,)
        assert found.dtype == torch.int64


@pytest.mark.parametrize("name", sorted(WITH_CLASSES))
def test_classes_do_not_depend_on_the_batch_and_are_what_the_labels_say(name: str) -> None:
    workload = WORKLOADS[name]()
    ids = [7, 4, 11, 0]
    (together,) = (workload.classes(batch) for batch in workload.batches("train", batch_size=4, ids=ids))
    alone = [workload.classes(batch) for batch in workload.batches("train", batch_size=1, ids=ids)]
    changed = {4: 0, 7: 2} if name == "classifier with wrong labels" else {}
    assert together is not None
    assert together.tolist() == [int(part) for part in alone if part is not None]
    assert together.tolist() == [changed.get(example, example % 3) for example in ids]


# ---- every measure, every study


@pytest.fixture(params=WORKLOADS)
def workload(request: pytest.FixtureRequest) -> Workload:
    """With six examples, of different lengths where they have lengths."""
    return WORKLOADS[request.param]()


EXAMPLES = 6


def batches(workload: Workload, batch_size: int) -> Iterator[Batch]:
    return workload.batches("train", batch_size=batch_size, ids=workload.ids("train")[:EXAMPLES])


def matrices(workload: Workload, batch_size: int) -> SiteMatrices:
    """Of all sites; AGOP from two random directions."""
    model = workload.model()
    sites = choose_sites(workload, model, "*")
    initial = {name: weight / 2 for name, weight in site_weights(workload, model, sites).items()}
    conventions = Conventions(directions=Directions(2, seed=3), precision="float64")
    measures = SiteMeasures(workload, sites, frozenset(MATRICES), conventions, initial)
    return measures(model, batches(workload, batch_size))


def test_every_matrix_and_every_relation_is_measured_and_does_not_depend_on_batches(workload: Workload) -> None:
    together, apart = matrices(workload, EXAMPLES), matrices(workload, 2)
    exact = [name for name in OF_ANY_MODEL if not RELATIONS[name].needs_all_outputs]
    relations = alignment(together, exact, AlignmentOptions(top_k=2)).scalars
    assert {key.rpartition("/")[0] for key in relations} == set(together)
    for site, of_site in together.items():
        assert of_site.keys() == set(MATRICES)
        missing = {name for name in exact if f"{site}/{name}" not in relations}
        assert all(name.endswith("_overlap") for name in missing)  # of sites with one output
        for name, matrix in of_site.items():
            parts, others = (
                [one.dense()] if isinstance(one, Congruence) else one.cores for one in (matrix, apart[site][name])
            )
            for part, other in zip(parts, others, strict=True):
                torch.testing.assert_close(other, part, rtol=0, atol=1e-5 * float(part.abs().max()))


def test_gradients_of_examples_and_their_directions_are_measured_and_agree_with_the_mean(workload: Workload) -> None:
    model = workload.model()
    names = choose_parameters(workload, model)
    K = GradientGram(workload, workload.ids("train")[:EXAMPLES], names)(model)
    means = [mean_gradient(workload, model, batches(workload, size)) for size in (EXAMPLES, 2)]
    squared = [sum(float(part.double().square().sum()) for part in mean.values()) for mean in means]
    assert squared == pytest.approx([float(K.mean())] * 2, rel=1e-4)
    few = next(batches(workload, EXAMPLES))
    with torch.no_grad():
        losses = workload.losses(workload.outputs(model.eval(), few), few)
    found = gradient_directions(K, Probed(losses, workload.classes(few)), seed=0).scalars
    assert found["gradient/zero_fraction"] < 1  # units of a small classifier may be off for an example
    assert found["gradient/effective_rank"] > 0


def test_gradient_flow_is_measured_of_every_group(workload: Workload) -> None:
    model = workload.model()
    groups = workload.groups(model)
    rms = root_mean_squares(groups.names, mean_gradient(workload, model, batches(workload, EXAMPLES)))
    before = {name: weight.detach() / 2 for name, weight in model.named_parameters()}
    changes = relative_changes(groups.names, before, dict(model.named_parameters()))
    found = gradient_flow(rms, changes, {}, groups)
    assert {key for key in found if "ratio" not in key} == {
        f"flow/{group}/{name}" for group in groups.names for name in ("grad_rms", "weight_change")
    }
    assert ("flow/front_output_ratio" in found) is (groups.front != groups.output is not None)
