"""The Conformer: its size, and the same outputs and gradients as the obvious one, whatever is switched on."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import reference
from nfa.registry.families.eeg.config import LONGEST
from nfa.registry.families.eeg.conformer import Conformer, ConformerOptions, initialise, sinusoids
from tests.support.conformers import PLAIN, RESIDUALS, SMALL, gradients, small, windows

V1 = {"use_residual": False, "use_gated_residual": False, "use_mlp_head": False, "gradient_scale": 1.0}


def of_size(**options: object) -> dict[str, int]:
    """Numbers of parameters by the first word of their names; "" = all."""
    with torch.device("meta"):
        model = Conformer(ConformerOptions(**options))
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in model.named_children()}
    return {**counts, "block": sum(w.numel() for w in model.layer_stack[0].parameters()), "": sum(counts.values())}


def test_parts_of_the_paper_s_size_have_the_published_numbers_of_parameters():
    counts = of_size()
    assert counts["block"] == 1_856_704
    assert counts["layer_stack"] == 8 * 1_856_704
    assert (counts["cnn"], counts["se"], counts["subject"]) == (641_280, 8_192, 18_432)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (V1, 15_521_793),
        ({**V1, "use_residual": True, "use_mlp_head": True}, 15_555_073),
        ({}, 15_588_161),
        ({**V1, "use_se": False}, 15_521_793 - 8_192),
        ({**V1, "use_subjects": False}, 15_521_793 - 18_432),
        ({**V1, "use_positions": False}, 15_521_793),
        ({**V1, "n_layers": 7}, 15_521_793 - 1_856_704),
        ({**V1, "conv_kernel_size": 29}, 15_521_793 - 8 * 2 * 512),
        ({**V1, "dropout": 0.0, "gradient_scale": 3.0, "output_grad_scale": 0.5}, 15_521_793),
    ],
)
def test_the_network_has_the_parameters_of_what_is_switched_on_and_no_others(options, count):
    assert of_size(**options)[""] == count


def by_reference(model: Conformer, residual: str, eeg: torch.Tensor, subjects: torch.Tensor) -> torch.Tensor:
    options = model.options
    return reference.conformer(
        {**model.state_dict(), **dict(model.named_parameters())},
        eeg,
        subjects,
        blocks=options.n_layers,
        heads=options.n_head,
        positions=options.use_positions,
        squeeze_excitation=options.use_se,
        subject=options.use_subjects,
        residual=residual,
        mlp_head=options.use_mlp_head,
    )


def assert_equals_the_reference(residual: str, *, n: int = 2, length: int = 6, **options: object) -> None:
    model = small(residual=residual, **options)
    eeg, subjects = windows(n, length, model.options.channels, model.options.subjects)
    eeg.requires_grad_()
    random = torch.Generator().manual_seed(3)
    direction = torch.randn(n, length, 1, generator=random, dtype=torch.float64)
    named = {"eeg": eeg, **dict(model.named_parameters())}
    found, expected = model(eeg, subjects), by_reference(model, residual, eeg, subjects)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    pairs = [torch.autograd.grad(each, list(named.values()), direction) for each in (found, expected)]
    for name, one, other in zip(named, *pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("mlp_head", [False, True])
@pytest.mark.parametrize("embedding", list(product([False, True], repeat=3)))
def test_outputs_and_gradients_equal_the_reference(residual, mlp_head, embedding):
    switches = dict(zip(("use_positions", "use_se", "use_subjects"), embedding, strict=True))
    assert_equals_the_reference(residual, use_mlp_head=mlp_head, **switches)


def test_the_vector_of_an_unknown_subject_is_the_mean_of_all():
    model = small(subjects=3)
    eeg, _ = windows(1)
    vectors = [model.embed(eeg, torch.tensor([who])) for who in (0, 1, 2)]
    torch.testing.assert_close(model.embed(eeg, torch.tensor([-1])), torch.stack(vectors).mean(dim=0))
    mixed, subjects = windows(3)[0], torch.tensor([2, -1, 0])
    expected = by_reference(model, "gate", mixed, subjects)
    torch.testing.assert_close(model(mixed, subjects), expected, rtol=1e-9, atol=1e-9)


@given(
    n=st.integers(1, 3),
    length=st.integers(1, 9),
    channels=st.integers(1, 5),
    subjects=st.integers(1, 9),
    n_head=st.integers(1, 3),
    half=st.integers(0, 4),
    n_layers=st.integers(1, 2),
)
@settings(max_examples=10)
def test_any_length_channels_subjects_heads_kernel_and_blocks(n, length, channels, subjects, n_head, half, n_layers):
    sizes = {"channels": channels, "subjects": subjects, "d_model": 4 * n_head, "n_head": n_head, "n_layers": n_layers}
    assert_equals_the_reference("gate", n=n, length=length, conv_kernel_size=2 * half + 1, **sizes)


@pytest.mark.parametrize("d_model", [7, 8])
def test_positions_are_those_of_the_paper_for_even_and_odd_widths(d_model):
    found = sinusoids(5, d_model, torch.zeros(1, dtype=torch.float64))
    for t, column in product(range(5), range(d_model)):
        angle = torch.tensor(t / 10_000 ** (2 * (column // 2) / d_model), dtype=torch.float64)
        assert found[t, column] == pytest.approx(float(angle.cos() if column % 2 else angle.sin()), abs=1e-12)


def test_windows_are_as_long_as_the_model_allows_and_not_longer():
    model = small(n_layers=1, residual="none").float()
    eeg, subjects = (torch.zeros(1, LONGEST + 1, 3), torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        assert model(eeg[:, :LONGEST], subjects).shape == (1, LONGEST, 1)
        with pytest.raises(ValueError, match=rf"{LONGEST + 1} positions, where there may be 1 to {LONGEST}"):
            model(eeg, subjects)


def test_an_example_does_not_depend_on_the_others_of_its_batch():
    model, (eeg, subjects) = small(), windows(5)
    whole = model(eeg, subjects)
    for index in range(5):
        alone = model(eeg[index : index + 1], subjects[index : index + 1])
        torch.testing.assert_close(alone[0], whole[index], rtol=1e-12, atol=1e-12)


def test_initial_weights_are_those_of_torch_and_follow_from_the_seed_alone():
    first, second, other = (Conformer(ConformerOptions(**SMALL)) for _ in range(3))
    state = torch.get_rng_state()
    for model, seed in ((first, 3), (second, 3), (other, 4)):
        initialise(model, seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.cnn.convs[0].weight, other.cnn.convs[0].weight)
    bound = first.head.hidden.in_features**-0.5
    assert 0.8 * bound < float(first.head.hidden.weight.detach().abs().max()) <= bound
    table = first.layer_stack[0].attention.positions
    assert float(table.detach().std()) == pytest.approx(table.shape[1] ** -0.5, rel=0.05)
    assert not any(
        torch.equal(one.weight, two.weight)
        for one, two in [(first.layer_stack[0].ffn_in.expand, first.layer_stack[0].ffn_out.expand)]
    )


def test_float32_is_within_1e_4_of_the_reference():
    model, (eeg, subjects) = small(), windows()
    expected = by_reference(model, "gate", eeg, subjects)
    torch.testing.assert_close(model.float()(eeg.float(), subjects).double(), expected, rtol=1e-4, atol=1e-4)


def test_gradients_of_a_batch_are_sums_of_those_of_its_examples():
    """In evaluation mode; nothing but BatchNorm and dropout in training mode mixes examples."""
    model, (eeg, subjects) = small(**PLAIN), windows(3)
    together = torch.autograd.grad(model(eeg, subjects).sum(), list(model.parameters()))
    alone = [
        torch.autograd.grad(model(eeg[i : i + 1], subjects[i : i + 1]).sum(), list(model.parameters()))
        for i in range(3)
    ]
    for whole, *parts in zip(together, *alone, strict=True):
        torch.testing.assert_close(whole, sum(parts), rtol=1e-9, atol=1e-9)


def test_outputs_and_gradients_are_finite_for_silence():
    model = small()
    outputs, found = gradients(model, torch.zeros(2, 9, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
    assert outputs.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in found.values())
