"""Matrices and gradients of a language model: the reference's, one question at a time and without padding."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa import reference
from nfa.analyses.alignment import Analysis
from nfa.errors import Refusal
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.measures.mean_gradient import mean_gradient
from nfa.measures.site_matrices import Conventions, SiteMeasures
from nfa.observe.directions import Directions
from nfa.observe.passes import site_weights
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.families.language.workload import LanguageModel
from nfa.relations import MATRICES
from nfa.workload import Batch
from tests.support.language_models import ALPHA, LENGTHS, RANK, language_of_words

CLOSE = {"rtol": 0, "atol": 2e-6}  # of the largest entry: the model's norms are taken in float32
SITES = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
INITS = ["random", "full"]
BATCH_SIZES = [1, 3, 7]
PREFIX = "base_model.model."


class Alone(nn.Module):
    """One question [1 s] without padding or mask: logits that predict the tokens of its answer, which ends it."""

    def __init__(self, language: nn.Module, answer: int) -> None:
        super().__init__()
        self.language, self.answer = language, answer

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.language(input_ids=tokens.long()).logits
        return logits[:, -self.answer - 1 : -1]


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the answer's tokens of −ln p."""
    return F.cross_entropy(outputs[0], targets[0])


def expected(workload: LanguageModel, site: str, positions: str = "each") -> dict[str, Tensor]:
    """Every matrix of a site: means over questions of what the reference says of each."""
    model = workload.model()
    if workload.config.init == "full":
        W, path = model.get_submodule(site).weight.detach(), site
    else:
        path, layer = PREFIX + site, model.get_submodule(PREFIX + site)
        a, b = (part["default"].weight.detach() for part in (layer.lora_A, layer.lora_B))
        W = layer.base_layer.weight.detach() + reference.lora_update(b, a, ALPHA, RANK)
    rows = [_of_one(workload, model, path, W, item, positions) for item in range(len(LENGTHS))]
    found = {name: torch.stack([row[name] for row in rows]).mean(dim=0) for name in rows[0]}
    return {**found, "nfm": W.T @ W, "out_m": W @ W.T, "nfm_init_removed": W.T @ W / 4}


def _of_one(
    workload: LanguageModel, model: nn.Module, path: str, W: Tensor, item: int, positions: str
) -> dict[str, Tensor]:
    tokens, answer = workload.questions.ids[item], LENGTHS[item][1]
    alone, name, inputs = Alone(model, answer), f"language.{path}", tokens[None].double()
    h, z = (read(alone, name, inputs) for read in (reference.site_inputs, reference.site_outputs))
    delta = reference.loss_gradients(alone, name, inputs, tokens[None, -answer:], mean_loss)
    moment = lambda x: reference.second_moment(x, x, positions=positions)  # noqa: E731
    found = {"g": moment(-delta @ W), "h": moment(h), "out_g": moment(delta), "out_h": moment(z)}
    agop = reference.agop(reference.jacobians(alone, name, inputs), positions=positions)
    return {**found, "agop": agop, **({"fact": reference.fact(W, h, delta)} if positions == "each" else {})}


def measured(workload: LanguageModel, batches: Iterator[Batch], **conventions: object) -> dict[str, dict[str, Tensor]]:
    """The initial weights are halves of the weights."""
    model = workload.model()
    initial = {name: weight / 2 for name, weight in site_weights(workload, model, SITES).items()}
    wanted = frozenset(MATRICES) - ({"fact"} if conventions.get("positions") == "sum" else set())
    measures = SiteMeasures(workload, SITES, wanted, Conventions(**conventions), initial)
    return {
        site: {name: matrix.dense() for name, matrix in of_site.items()}
        for site, of_site in measures(model, batches).items()
    }


def assert_close(found: Tensor, other: Tensor) -> None:
    scale = other.abs().max()
    torch.testing.assert_close(found / scale, other / scale, **CLOSE)


@pytest.mark.parametrize(("init", "positions"), [
    ("random", "each"), pytest.param("full", "each", marks=pytest.mark.slow), ("random", "sum"),
])  # fmt: skip
def test_every_matrix_is_that_of_the_questions_alone_however_they_are_padded(init: str, positions: str) -> None:
    workload = language_of_words(init)
    references = {site: expected(workload, site, positions) for site in SITES}
    for batch_size in BATCH_SIZES:
        batches = workload.batches("train", batch_size=batch_size)
        for site, of_site in measured(workload, batches, positions=positions).items():
            assert of_site.keys() == references[site].keys()
            for name, matrix in of_site.items():
                assert_close(matrix, references[site][name])


def gathered(workload: LanguageModel, batch_size: int) -> dict[str, Tensor]:
    """From random directions: estimates by site, and the rows that their errors are told from."""
    conventions = Conventions(directions=Directions(3, seed=5))
    measures = SiteMeasures(workload, SITES, frozenset({"agop"}), conventions)
    found = measures(workload.model(), workload.batches("train", batch_size=batch_size))
    return {
        **{f"{site} {part}": core for site in SITES for part, core in enumerate(found[site]["agop"].cores)},
        **{f"{site} sample": found[site]["agop"].sample.square().sum(dim=2) for site in SITES},
    }


def test_random_directions_of_a_question_are_the_same_in_every_batch() -> None:
    workload = language_of_words()
    together, apart = gathered(workload, 7), gathered(workload, 2)
    for name, values in together.items():
        assert_close(apart[name], values)


def gradients(workload: LanguageModel, losses: Callable[[int], float] = lambda _: 1.0) -> Tensor:
    """γ [n P] of each question alone, times a weight."""
    model, rows = workload.model().double(), []
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for item, (_, answer) in enumerate(LENGTHS):
        tokens = workload.questions.ids[item][None]
        loss = mean_loss(Alone(model, answer)(tokens), tokens[:, -answer:])
        made = torch.autograd.grad(losses(item) * loss, trained)
        rows.append(torch.cat([each.flatten() for each in made]))
    return torch.stack(rows)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("budget", [2**30, 1])
def test_the_gram_matrix_of_gradients_is_the_references(init: str, budget: int) -> None:
    """Over A and B of all modules, or over their weights; of one question at a time as of all."""
    workload = language_of_words(init)
    model = workload.model()
    gram = GradientGram(workload, range(len(LENGTHS)), choose_parameters(workload, model), budget=budget)
    found = gram(model)
    assert gram.exact == []
    assert_close(found, reference.gradient_gram(gradients(workload)))


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("init", INITS)
def test_the_mean_gradient_is_the_references(init: str, batch_size: int) -> None:
    workload = language_of_words(init)
    found = mean_gradient(workload, workload.model(), workload.batches("train", batch_size=batch_size))
    whole = torch.cat([value.flatten() for value in found.values()])
    assert_close(whole, gradients(workload).mean(dim=0))


def test_the_loss_of_a_step_weighs_every_token_the_same_in_its_gradients_too() -> None:
    workload = language_of_words()
    model, batches = workload.model(), list(workload.batches("train", batch_size=3))
    losses = workload.objective().fixed([(workload.outputs(model, batch), batch) for batch in batches])
    found = mean_gradient(workload, model, iter(batches), losses)
    tokens = sum(answer for _, answer in LENGTHS)
    weighted = gradients(workload, lambda item: LENGTHS[item][1] * len(LENGTHS) / tokens).mean(dim=0)
    assert_close(torch.cat([value.flatten() for value in found.values()]), weighted)


def test_layers_that_see_other_positions_than_the_tokens_are_refused() -> None:
    """Such as the readout, which is given those of the answers alone."""
    workload = language_of_words()
    model = workload.model()
    workload.sites = lambda _: {"readout": model.get_submodule(f"{PREFIX}lm_head")}  # type: ignore[method-assign]
    measures = SiteMeasures(workload, ["readout"], frozenset({"h"}))
    with pytest.raises(Refusal, match=r"'readout', which sees \d+ positions of examples padded to 11"):
        measures(model, workload.batches("train", batch_size=7))


def test_a_mean_jacobian_is_refused() -> None:
    workload = language_of_words()
    with pytest.raises(Refusal, match="different lengths"):
        Analysis(workload, workload.model(), AnalyzeConfig(centre="jacobian", directions="all"), None)
