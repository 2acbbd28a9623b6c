"""`analyze`, `gradient_directions` and `gradient_flow` read fine-tunings as they read any run, counted in steps."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from nfa import reference
from nfa.errors import Refusal
from nfa.registry import stored_runs
from nfa.registry.analyses import gradient_arrays
from tests.support import gradient_flow_runs
from tests.support.analyses import analysed, series
from tests.support.fine_tunings import CHECKPOINTS, MODULES, Place, used_place
from tests.support.gradient_direction_runs import directed
from tests.support.processes import Ended, run, words
from tests.support.stores import Store, used

N = 6
EPOCH = re.compile(r"epochs?\b", re.IGNORECASE)
ANALYSES = {
    "analyze": {"max_samples": N, "batch_size": 4},
    "gradient_directions": {"n": N},
    "gradient_flow": {"n": N, "batch_size": 4},
}


@dataclass(frozen=True)
class Tuned:
    """Two fine-tunings by name, and what the entry points made and said of the first."""

    store: Store
    ids: dict[str, str]
    analyses: dict[str, str]
    ended: dict[str, Ended]
    untouched: bool
    place: Place


def everything(store: Store, run_id: str) -> dict[str, object]:
    """All of a run that an analysis must not touch."""
    files = {path: path.read_bytes() for path in sorted(store.artifact(run_id).rglob("*")) if path.is_file()}
    return {"files": files, "metrics": store.metrics(run_id), "tags": store.tags(run_id)}


@pytest.fixture(scope="module")
def tuned(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("tuned")
    store, place = empty_store.copy(folder / "store"), Place.made(folder / "place")
    with pytest.MonkeyPatch.context() as patch, used(store, patch), used_place(place):
        names = {"adapter": {}, "full": {"init": "full", "lr": 0.002}}
        ids = {name: place.tune(run_name=name, **options) for name, options in names.items()}
        before, analyses, ended = everything(store, ids["adapter"]), {}, {}
        for entrypoint, options in ANALYSES.items():
            known = store.runs()
            argv = words(run_id=ids["adapter"], device="cpu", **options)
            drawn = entrypoint != "analyze"
            ended[entrypoint] = run(
                store, argv, entrypoint=entrypoint, pictures=drawn, NFA_CACHE=str(place.folder / "cache")
            )
            assert ended[entrypoint].code == 0, ended[entrypoint].output
            (analyses[entrypoint],) = set(store.runs()) - set(known)
        untouched = everything(store, ids["adapter"]) == before
    return Tuned(store, ids, analyses, ended, untouched, place)


class Tokens(torch.nn.Module):
    """A language model that takes tokens as numbers of any kind."""

    def __init__(self, language: torch.nn.Module) -> None:
        super().__init__()
        self.language = language

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.language(input_ids=tokens.long()).logits
        return logits


@pytest.fixture
def looking(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tuned]:
    with used(tuned.store, monkeypatch), used_place(tuned.place):
        yield tuned


def test_analyses_leave_the_run_bitwise_as_it_was(tuned: Tuned) -> None:
    assert tuned.untouched


@pytest.mark.parametrize("entrypoint", ANALYSES)
def test_everything_that_is_said_and_written_is_counted_in_steps(entrypoint: str, tuned: Tuned) -> None:
    said = tuned.ended[entrypoint].output
    for step in CHECKPOINTS:
        assert re.search(rf"step {step}\b", said)
    assert not EPOCH.search(said)
    folder = tuned.store.artifact(tuned.analyses[entrypoint])
    assert not [path for path in folder.rglob("*") if EPOCH.search(path.name.replace("_", " "))]
    for path in [*folder.glob("*.txt"), *folder.glob("*.csv")]:
        assert not EPOCH.search(path.read_text(encoding="utf-8")), path
    described = tuned.store.json(tuned.analyses[entrypoint], "config.json")
    assert described["unit"] == "step"
    assert sorted(next(iter(series(tuned.store, tuned.analyses[entrypoint]).values()))) == CHECKPOINTS


def test_tables_have_a_column_of_steps(tuned: Tuned) -> None:
    for entrypoint, table in (("analyze", "similarities.csv"), ("gradient_directions", "gradient_directions.csv")):
        first, second = tuned.store.artifact(tuned.analyses[entrypoint], table).read_text().splitlines()[:2]
        assert first.startswith("step,")
        assert second.startswith("0,")
    report = tuned.store.json(tuned.analyses["gradient_directions"], "gradient_directions.json")
    assert report["steps"] == CHECKPOINTS
    assert report["phases"] == {}


def test_pictures_and_arrays_of_a_step_are_named_by_it(tuned: Tuned) -> None:
    names = {path.name for path in tuned.store.artifact(tuned.analyses["gradient_directions"]).rglob("*")}
    for step in CHECKPOINTS:
        assert f"gradient_similarities_step_{step}.png" in names
        assert f"gradient_similarities_step_{step}.npy" in names
    assert "gns_vs_step.png" in names


def test_adapted_layers_are_the_sites_and_their_values_those_of_the_reference(looking: Tuned) -> None:
    made = looking.analyses["analyze"]
    assert looking.store.json(made, "config.json")["sites"] == MODULES
    found, site = series(looking.store, made), MODULES[3]
    model, workload = stored_runs.load_checkpoint(looking.ids["adapter"], 8, device="cpu")
    layer = model.get_submodule(f"base_model.model.{site}")
    a, b = (part["default"].weight.detach() for part in (layer.lora_A, layer.lora_B))
    scaled = reference.lora_update(b, a, workload.config.alpha, workload.config.rank)
    W = layer.base_layer.weight.detach().double() + scaled
    H = torch.zeros(W.shape[1], W.shape[1], dtype=torch.float64)
    for item in workload.ids("probe")[:N]:
        tokens = workload.questions.ids[item][None].double()
        h = reference.site_inputs(Tokens(model), f"language.base_model.model.{site}", tokens)
        H += reference.second_moment(h, h) / N
    assert found[f"{site}/h_vs_m"][8] == pytest.approx(reference.cosine(H, reference.nfm(W)), abs=1e-5)


def test_gradient_directions_without_epochs_take_all_where_none_of_the_default_exists(looking: Tuned) -> None:
    assert looking.store.json(looking.analyses["gradient_directions"], "config.json")["gradient_directions"]["epochs"]
    assert sorted(series(looking.store, looking.analyses["gradient_directions"])["eval/loss"]) == CHECKPOINTS
    K = stored_gram_of(looking, "gradient_directions", 8)
    model, workload = stored_runs.load_checkpoint(looking.ids["adapter"], 8, device="cpu")
    batches = workload.batches("train", batch_size=N, ids=workload.ids("probe")[:N])
    whole = next(batches)
    losses = workload.objective().fixed([(workload.outputs(model, whole), whole)])
    expected = reference.gradient_gram(reference.example_gradients(model, workload, whole, None, losses))
    assert float((K - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def stored_gram_of(tuned: Tuned, entrypoint: str, step: int) -> torch.Tensor:
    """K from what is stored of a step."""
    norms, cosines = (
        torch.tensor(gradient_arrays.load(tuned.analyses[entrypoint], step, key)).double()
        for key in ("norms", "cosines")
    )
    return norms[:, None] * cosines * norms


def test_gradient_flow_of_blocks_says_why_there_is_no_ratio(looking: Tuned) -> None:
    made = looking.analyses["gradient_flow"]
    said, folder = looking.ended["gradient_flow"].output, looking.store.artifact(made)
    text = (folder / "gradient_flow.txt").read_text(encoding="utf-8")
    assert "ratios to the output are not defined, because the output layer is not trained" in text
    assert "since step 0" in text
    assert "not measured" not in text
    assert re.search(r"step 8\s+gradient \S+ \(block_\d\) … \S+ \(block_\d\); update", said)
    assert {path.stem for path in (folder / "plots").iterdir()} == {"gradient_flow_map", "preview"}
    report = json.loads((folder / "gradient_flow.json").read_text(encoding="utf-8"))
    assert report["steps"] == CHECKPOINTS
    assert report["front_output_ratio"] == [None] * len(CHECKPOINTS)
    expected = gradient_flow_runs.expected(looking.ids["adapter"], 8, N, weighted(looking, 8))
    values = gradient_flow_runs.of_kind(
        gradient_flow_runs.at(series(looking.store, made), 8), "/grad_rms", "/weight_change"
    )
    assert values == pytest.approx(expected, rel=1e-4)


def weighted(tuned: Tuned, step: int) -> object:
    """The loss that was trained on: every token weighs the same."""
    model, workload = stored_runs.load_checkpoint(tuned.ids["adapter"], step, device="cpu")
    whole = next(workload.batches("train", batch_size=N, ids=workload.ids("probe")[:N]))
    return workload.objective().fixed([(workload.outputs(model, whole), whole)])


def test_a_step_that_does_not_exist_is_refused(looking: Tuned) -> None:
    with pytest.raises(Refusal, match=r"epochs=3 \(the run has no checkpoint 3\)"):
        analysed(looking.store, run_id=looking.ids["adapter"], epochs="3")


def test_fine_tunings_are_compared_in_steps_an_adapter_with_a_full_one_too(
    looking: Tuned, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ",".join(looking.ids.values())
    flow = gradient_flow_runs.flow_of(looking.store, *looking.ids, n=N, epochs="8")
    directions = directed(looking.store, run_id=both, epochs="2,8", n=N)
    alignment = analysed(looking.store, run_id=both, epochs="8", max_samples=N)
    said = capsys.readouterr()
    assert not EPOCH.search(said.out)
    for made in (flow, directions, alignment):
        assert looking.store.json(made, "config.json")["unit"] == "step"
        assert "step" in looking.store.artifact(made, "comparison.csv").read_text().splitlines()[0].split(",")
    assert not EPOCH.search(looking.store.artifact(flow, "gradient_flow.txt").read_text(encoding="utf-8"))
    assert looking.store.json(flow, "gradient_flow.json")["step"] == 8
