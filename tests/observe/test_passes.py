"""What a pass tells its listeners: h, δ and K of every site, each example's own, whatever the batch size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nfa import reference
from nfa.errors import Refusal
from nfa.observe.door import few_of, find_sites
from nfa.observe.found_sites import Sites
from nfa.observe.passes import observe
from nfa.observe.records import Part, Record, Source
from tests.support.toy_models import Sequences, Tied, Toy, half_square, layers, seeded, toy

CLOSE = {"rtol": 1e-10, "atol": 1e-13}


@dataclass
class Recorder:
    """Keeps everything it hears."""

    source: Source
    needs: frozenset[Part] = frozenset({Part.INPUTS, Part.OUTPUTS})
    heard: list[Record] = field(default_factory=list)

    def update(self, record: Record) -> None:
        self.heard.append(record)


def listening(ears: Mapping[str, list[Recorder]]) -> dict[str, Callable[[Tensor], list[Recorder]]]:
    return {name: lambda _, ears=ears: ears for name, ears in ears.items()}


def hear(
    toys: Toy, *sources: Source, batch_size: int = 2, sites: Sites | None = None
) -> dict[str, dict[Source, list[Record]]]:
    ears = {name: [Recorder(source) for source in sources] for name in toys.sites_named}
    observe(toys.net, toys, toys.batches("train", batch_size=batch_size), listening(ears), sites=sites)
    return {name: {ear.source: ear.heard for ear in listening} for name, listening in ears.items()}


TOYS = {
    "chain": lambda: toy(seeded(layers, 3, 5, 4, 2), 5, 3, sites=["0", "2", "4"]),
    "positions": lambda: toy(seeded(Sequences, 3, 5, 2), 5, 4, 3, sites=["first", "second", "readout"]),
    "called twice": lambda: toy(seeded(Tied, 3, 5, 2), 5, 4, 3, sites=["shared", "readout"]),
}


@pytest.mark.parametrize("case", TOYS)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_loss_gradients_are_those_of_each_examples_own_loss(case, batch_size):
    toys = TOYS[case]()
    for name, heard in hear(toys, Source.LOSS, batch_size=batch_size).items():
        delta = torch.cat([record.gradient for record in heard[Source.LOSS]])
        exact = reference.loss_gradients(toys.net, name, toys.inputs, toys.targets, half_square)
        torch.testing.assert_close(delta, exact, **CLOSE)


@pytest.mark.parametrize("case", TOYS)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_output_direction_gives_its_row_of_the_jacobian(case, batch_size):
    """K_k W = J_k at every site and position."""
    toys = TOYS[case]()
    for name, heard in hear(toys, Source.OUTPUT, batch_size=batch_size).items():
        exact = reference.jacobians(toys.net, name, toys.inputs)
        weight = toys.net.get_submodule(name).weight.detach()
        for k in range(exact.shape[2]):
            K = torch.cat([record.gradient for record in heard[Source.OUTPUT] if record.direction == k])
            torch.testing.assert_close(K @ weight, exact[:, :, k], **CLOSE)
        assert {record.direction for record in heard[Source.OUTPUT]} == set(range(exact.shape[2]))


def test_inputs_are_what_the_site_was_given_in_the_real_forward_pass():
    toys = TOYS["chain"]()
    heard = hear(toys, Source.FORWARD, batch_size=5)
    hidden = toys.inputs
    for name in ("0", "2", "4"):
        h = torch.cat([record.inputs for record in heard[name][Source.FORWARD]])
        assert torch.equal(h[:, 0], hidden)
        assert not h.requires_grad
        hidden = torch.tanh(toys.net.get_submodule(name)(hidden)).detach()


def test_all_sources_share_one_forward_pass():
    toys, calls = TOYS["chain"](), []
    sites = find_sites(toys.net, toys, few_of(toys))
    toys.net.register_forward_hook(lambda *_: calls.append(1))
    heard = hear(toys, Source.FORWARD, Source.LOSS, Source.OUTPUT, batch_size=5, sites=sites)
    assert len(calls) == 1
    assert {source: len(records) for source, records in heard["0"].items()} == {
        Source.FORWARD: 1,
        Source.LOSS: 1,
        Source.OUTPUT: 2,
    }


def test_calls_of_one_module_follow_each_other_along_the_positions():
    toys = TOYS["called twice"]()
    record = hear(toys, Source.FORWARD, batch_size=5)["shared"][Source.FORWARD][0]
    assert torch.equal(record.inputs[:, :4], toys.inputs)
    assert torch.equal(record.inputs[:, 4], toys.inputs.square().mean(dim=1))


@pytest.mark.parametrize("frozen", [False, True])
def test_an_activation_that_works_in_place_changes_nothing(frozen):
    """Gradients are those at z, also where z's memory has been overwritten by what follows."""
    plain, in_place = (
        toy(seeded(layers, 3, 6, 6, 2, activation=activation), 5, 3, sites=["0", "2", "4"])
        for activation in (nn.ReLU, lambda: nn.ReLU(inplace=True))
    )
    in_place.net.requires_grad_(not frozen)
    found, expected = hear(in_place, Source.OUTPUT, Source.LOSS), hear(plain, Source.OUTPUT, Source.LOSS)
    for name in ("0", "2", "4"):
        for source in (Source.OUTPUT, Source.LOSS):
            for record, other in zip(found[name][source], expected[name][source], strict=True):
                assert torch.equal(record.gradient, other.gradient)


def test_outputs_are_heard_once_a_batch_and_carry_no_graph():
    toys, heard = TOYS["chain"](), []
    ears = {"0": [Recorder(Source.OUTPUT)]}
    batches = toys.batches("train", batch_size=2)
    keep = lambda outputs, batch: heard.append((outputs, batch.ids))  # noqa: E731
    observe(toys.net, toys, batches, listening(ears), record_outputs=keep)
    assert torch.cat([ids for _, ids in heard]).tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(torch.cat([outputs for outputs, _ in heard]), toys.net(toys.inputs).detach())
    assert not any(outputs.requires_grad for outputs, _ in heard)


def test_observation_works_under_no_grad():
    toys = TOYS["chain"]()
    with torch.no_grad():
        found = hear(toys, Source.OUTPUT)
    for record, other in zip(found["0"][Source.OUTPUT], hear(toys, Source.OUTPUT)["0"][Source.OUTPUT], strict=True):
        assert torch.equal(record.gradient, other.gradient)


@pytest.mark.parametrize(
    "reduced",
    [lambda f, y: (f - y).square().mean(), lambda f, y: (f - y).square(), lambda f, y: half_square(f, y)[:1]],
    ids=["a mean over the batch", "one value for each output", "one value for the batch"],
)
def test_losses_that_are_not_one_for_each_example_are_refused(reduced):
    toys = TOYS["chain"]()
    toys.loss = reduced
    with pytest.raises(Refusal, match=r"(?s)losses of shape \(.*for 2 examples.*one loss for each example.*unreduced"):
        hear(toys, Source.LOSS)


def test_a_module_that_is_no_linear_map_is_refused_by_name():
    toys = TOYS["chain"]()
    toys.sites_named = ["0", "1"]
    with pytest.raises(Refusal, match=r"(?s)site '1', whose output is not W h \+ b.*sites=!1"):
        hear(toys, Source.OUTPUT)


def test_a_site_that_the_forward_pass_never_calls_is_refused_by_name():
    toys = TOYS["called twice"]()
    toys.net.idle = nn.Linear(2, 2)
    toys.sites_named = ["shared", "idle"]
    with pytest.raises(Refusal, match=r"(?s)site 'idle'.*never calls.*do: "):
        hear(toys, Source.OUTPUT)
