"""make device: a small version runs on a processor; it finds wrong values, and goes on without room or time."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measured_pages
import pytest
import torch
from torch import Tensor

from benchmarks import record
from benchmarks.device import __main__ as device
from benchmarks.device import accelerator as accelerators
from benchmarks.device import fine_tuning, speed, values
from benchmarks.device.accelerator import NO_ROOM, NO_TIME, Accelerator, Clock
from benchmarks.device.plan import SMALL
from benchmarks.device.values import Difference, compared
from benchmarks.networks import CASES, losses
from nfa.errors import Refusal

PROCESSOR = Accelerator(torch.device("cpu"))
TINIEST = dataclasses.replace(
    SMALL, values={"MLP 12-8×2-10": SMALL.values["MLP 12-8×2-10"]}, speed={"MLP 12-8×2-10": SMALL.agop}
)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (record, measured_pages):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(device, "SMALL", TINIEST)
    return tmp_path


def rows(printed: str) -> dict[str, str]:
    return dict(line.rsplit(": ", 1) for line in printed.splitlines())


def test_the_small_version_measures_everything_on_a_processor_and_stores_nothing(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert device.main("cpu") == 0
    assert not list(results.iterdir())
    printed = rows(capsys.readouterr().out)
    exact = {
        name.removesuffix(": difference"): float(found.split("float64 ")[1].split(";")[0])
        for name, found in printed.items()
        if name.endswith("difference")
    }
    start = "MLP 12-8×2-10, "
    for what in ("AGOP", "G", "H", "cosines"):
        assert exact[f"{start}{what}, float64"] == 0
        assert 0 < exact[f"{start}{what}, float32"] < 1e-6
        assert 1e-6 < exact[f"{start}{what}, bfloat16"] < 1e-2  # it is rounded
    assert 0 < exact[f"{start}Gram matrix, float32"] < 1e-6
    for optimizer in ("sgd", "adam", "muon"):
        assert 0 < exact[f"{start}weights after 3 steps of {optimizer}, float32"] < 1e-4
    for name in (
        "LoRA step, tiny, float32: s per step",
        "LoRA step, tiny, bfloat16: tokens per second",
        "AGOP, 8 examples: times faster than vmap(jacrev)",
        "Gram matrix, MLP 12-8×2-10, 4 examples: times faster than vmap(grad)",
    ):
        assert float(printed[name]) > 0


def fine(found: Tensor, wrong: Tensor) -> list[bool]:
    same, exact = {"G/a": found}, {"G/a": found}
    return [difference.ok for _, difference in compared({"G/a": wrong}, same, exact, 1e-5)]


def test_a_value_that_differs_by_more_than_is_allowed_is_found_and_nan_too() -> None:
    found = torch.ones(2, 2, dtype=torch.float64)
    assert fine(found, found + 1e-6) == [True]
    assert fine(found, found + 1e-4) == [False]
    assert fine(found, found * torch.nan) == [False]
    assert not Difference(same=0, exact=1, allowed=0.5).ok
    assert not Difference(same=1, exact=0, allowed=0.5).ok
    assert "TOO LARGE" in str(Difference(same=1, exact=0, allowed=0.5))
    cosines = dict(compared({"cosines": found * 1e-7}, {"cosines": 0 * found}, {"cosines": 0 * found}, 1e-5))
    assert cosines["cosines"].same == pytest.approx(1e-7)  # of numbers up to 1, and not relative to 0


@pytest.mark.usefixtures("results")
def test_a_device_that_computes_a_wrong_gram_matrix_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = iter(range(100))

    def on_device(measure: Callable[..., Any], *given: Any) -> Any:  # exact, and then pairs of device and processor
        found = measure(*given)
        return {"Gram matrix": found["Gram matrix"] * 1.001} if next(calls) in (1, 3) else found

    ((kind, made, allowed),) = (of for of in values.KINDS if of[1] is values.gram)
    monkeypatch.setattr(values, "KINDS", [(kind, partial(on_device, made), allowed)])
    monkeypatch.setattr(device, "fine_tuning", lambda *_: iter(()))
    monkeypatch.setattr(device, "speeds", lambda *_: iter(()))
    assert device.main("cpu") == 1
    assert capsys.readouterr().out.count("TOO LARGE") == 2


def of_memory() -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")


def of_cublas() -> Any:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def of_a_kernel(*_: Any) -> Any:
    raise RuntimeError("no kernel image is available")


def in_float32(*given: Any) -> Any:
    return of_a_kernel() if given[3] == "float32" else values.matrices(*given)


def test_what_does_not_fit_is_told_and_the_other_way_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PROCESSOR.attempt(lambda: 3) == 3
    assert PROCESSOR.attempt(of_memory) is PROCESSOR.attempt(of_cublas) is NO_ROOM
    assert not NO_ROOM.is_failure
    monkeypatch.setattr(speed, "gram_vmap_grad", lambda *_: of_memory())
    found = dict(speed.speeds(TINIEST, PROCESSOR, Clock(60)))
    label = "Gram matrix, MLP 12-8×2-10, 4 examples"
    assert found[f"{label}: vmap(grad)"] == NO_ROOM
    assert found[f"{label}: this, ms"] > 0
    assert f"{label}: times faster than vmap(grad)" not in found
    monkeypatch.setattr(fine_tuning, "started", lambda *_: of_memory())
    assert set(dict(fine_tuning.fine_tuning(SMALL.language, PROCESSOR, Clock(60))).values()) == {NO_ROOM}


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("place", ["speed.gram_vmap_grad", "fine_tuning.started", "values.KINDS"])
def test_a_failure_is_told_everything_else_is_measured_and_the_exit_code_is_1(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing: Any = of_a_kernel
    if place == "values.KINDS":
        failing = [("", in_float32, values.ALLOWED), *values.KINDS[1:]]
    monkeypatch.setattr(f"benchmarks.device.{place}", failing)
    assert device.main("cpu") == 1
    printed = capsys.readouterr().out
    assert "failed: RuntimeError: no kernel image is available" in printed
    for part in ("Gram matrix, float32: difference", "4 examples: this, ms", "all of this took"):
        assert part in printed


def test_what_there_is_no_time_for_is_told() -> None:
    over = Clock(0)
    assert set(dict(values.differences(TINIEST, PROCESSOR, over)).values()) == {NO_TIME}
    assert set(dict(speed.speeds(TINIEST, PROCESSOR, over)).values()) == {NO_TIME}
    assert set(dict(fine_tuning.fine_tuning(SMALL.language, PROCESSOR, over)).values()) == {NO_TIME}
    assert [Clock(100).rounds(seconds) for seconds in (0.0, 1, 20, 60)] == [5, 5, 2, 0]


class Pretended(Accelerator):
    """The processor, taken for an accelerator."""

    is_processor = False

    def described(self) -> dict[str, Any]:
        return {"device": "Pretended 9000", "device_memory_GB": 7, "driver": "1.2"}


def test_a_time_ends_when_the_device_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda of: done.append(of))
    ways = {name: partial(done.append, name) for name in ("a", "b")}
    found = Pretended(torch.device("cpu")).seconds(ways, Clock(60))
    assert isinstance(found, dict)
    assert {len(of) for of in found.values()} == {5}
    assert done == ["a", torch.device("cpu"), "b", torch.device("cpu")] * 6  # one of them to warm up


def test_the_record_of_an_accelerator_is_stored_and_shown_and_without_one_the_page_says_so(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "None of this was measured on an accelerator" in measured_pages.benchmarks().replace("\n", " ")
    monkeypatch.setattr(device, "Accelerator", Pretended)
    monkeypatch.setattr(device, "FULL", TINIEST)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.accelerator, name, lambda *_: None)
    assert device.main("cpu") == 0
    stored = json.loads((results / "device.json").read_text(encoding="utf-8"))
    assert stored["machine"]["device"] == "Pretended 9000"
    assert "allowed 1e-09" in stored["results"]["MLP 12-8×2-10, AGOP, float64: difference"]
    page = measured_pages.benchmarks()
    assert "`python -m benchmarks.device` on Pretended 9000, 7 GB, driver 1.2, with " in page
    assert "not measured on an accelerator" not in page
    assert "None of this" not in page


def test_facts_of_a_device_are_those_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PROCESSOR.described() == {"device": "cpu"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H")
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda _: (1, 80 * 10**9))
    monkeypatch.setattr(accelerators, "_driver", lambda: "")
    found = Accelerator(torch.device("cuda", 0)).described()
    assert {"device": "H", "device_memory_GB": 80}.items() <= found.items()
    assert "driver" not in found


def test_without_an_accelerator_it_says_how_to_try_it() -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    with pytest.raises(Refusal, match="make device DEVICE=cpu"):
        device.main("auto")


@pytest.mark.parametrize("name", CASES)
def test_the_networks_of_the_benchmarks_are_the_same_at_every_call_and_have_a_loss_for_each_example(name: str) -> None:
    (model, (inputs, targets)), (again, (same, _)) = CASES[name].build(2), CASES[name].build(2)
    assert torch.equal(inputs, same)
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    with torch.no_grad():
        assert losses(model(inputs), targets).shape == (2,)
