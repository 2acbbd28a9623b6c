"""The numbers of an analysis: equal to the reference's under every convention, whatever the batches."""

import numpy as np
import pytest
import torch

from nfa import reference
from nfa.levels import is_beside
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.observe.directions import signs
from nfa.relations import OF_ANY_MODEL
from tests.support.analyses import CHECKPOINTS, PAIRS, SITES, Exact, analysed, probe, series, values
from tests.support.stores import Finished

FEW = 40


def of_site(found: dict[str, float], site: str) -> dict[str, float]:
    """The relations of a site, without what stands beside them."""
    of = {key.removeprefix(f"{site}/"): value for key, value in found.items() if key.startswith(f"{site}/")}
    return {name: value for name, value in of.items() if not is_beside(name)}


@pytest.fixture(scope="module")
def exact(finished: Finished) -> dict[tuple[int, int], Exact]:
    """By epoch and layer."""
    return {(epoch, layer): Exact.of(finished, epoch, layer, FEW) for epoch in (0, 4) for layer in (0, 1)}


def test_every_relation_of_every_layer_equals_the_reference_in_float64(
    changeable: Finished, exact: dict[tuple[int, int], Exact]
) -> None:
    run_id = analysed(changeable.store, relations="all", top_k=2, max_samples=FEW)
    for (epoch, layer), matrices in exact.items():
        found = of_site(values(changeable.store, run_id, epoch), SITES[layer])
        expected = {name: value for name, value in matrices.relations(top_k=2).items() if not is_beside(name)}
        assert found == pytest.approx(expected, abs=1e-5)
        undefined = set() if epoch else {name for name in OF_ANY_MODEL if "init_removed" in name}
        assert set(OF_ANY_MODEL) - set(found) == undefined


def test_in_float64_they_are_equal_to_ten_digits(changeable: Finished, exact: dict[tuple[int, int], Exact]) -> None:
    run_id = analysed(changeable.store, relations="*_nfm,*_vs_?", max_samples=FEW, precision="float64", epochs="4")
    for layer, site in enumerate(SITES):
        found = of_site(values(changeable.store, run_id), site)
        expected = exact[4, layer].relations()
        assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-10)
        assert len(found) == 8


@pytest.mark.parametrize("centre", ["entry", "jacobian"])
def test_centred_values_equal_the_reference(
    centre: str, changeable: Finished, exact: dict[tuple[int, int], Exact]
) -> None:
    run_id = analysed(changeable.store, relations=",".join(PAIRS), centre=centre, max_samples=FEW, epochs="4")
    for layer, site in enumerate(SITES):
        found, matrices = of_site(values(changeable.store, run_id), site), exact[4, layer]
        if centre == "entry":
            assert found == pytest.approx(
                {name: value for name, value in matrices.relations(centre="entry").items() if name in PAIRS}, abs=1e-5
            )
        else:
            agop = reference.agop(matrices.jacobians, centre="jacobian")
            plain = matrices.relations()
            centred = {
                name: reference.cosine(agop, matrices.matrices[PAIRS[name][1]]) for name in PAIRS if "agop" in name
            }
            assert found == pytest.approx({name: centred.get(name, plain[name]) for name in PAIRS}, abs=1e-5)
    assert changeable.store.json(run_id, "config.json")["conventions"]["centre"] == centre


def test_square_root_of_agop_equals_the_reference(changeable: Finished, exact: dict[tuple[int, int], Exact]) -> None:
    run_id = analysed(changeable.store, relations="agop_*", agop_power="0.5", top_k=2, max_samples=FEW, epochs="4")
    for layer, site in enumerate(SITES):
        found, matrices = of_site(values(changeable.store, run_id), site), exact[4, layer]
        root = reference.agop(matrices.jacobians, power=0.5)
        slope, _ = reference.exponent(matrices.matrices["nfm"], root)
        expected = {
            "agop_nfm": reference.cosine(root, matrices.matrices["nfm"]),
            "agop_nfm_init_removed": reference.cosine(root, matrices.matrices["nfm_init_removed"]),
            "agop_stable_rank": reference.stable_rank(root),
            "agop_nfm_exponent": slope,
        }
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_two_random_directions_give_the_debiased_cosine_with_its_error_beside_it(
    changeable: Finished, exact: dict[tuple[int, int], Exact]
) -> None:
    """Without levels the error is that of directions alone; with them, it is also that of examples."""
    run_id = analysed(changeable.store, directions="2", seed=5, max_samples=FEW, epochs="4", chance=False)
    drawn = signs(np.array(probe(changeable, FEW)), 2, 10, 5)
    found = values(changeable.store, run_id)
    for layer, site in enumerate(SITES):
        matrices, plain = exact[4, layer], exact[4, layer].relations()
        directional = reference.directional_agop(matrices.jacobians, torch.from_numpy(drawn))
        for name in ("agop_nfm", "agop_nfm_init_removed"):
            expected = reference.debiased_cosine(directional, matrices.matrices[PAIRS[name][1]])
            assert found[f"{site}/{name}"] == pytest.approx(expected, abs=1e-5)
            error = found[f"{site}/{name}_se"]
            assert 0 < error < 0.2
            assert abs(expected - plain[name]) < 5 * error
        for name in ("g_vs_h", "g_vs_m", "h_vs_m"):
            assert found[f"{site}/{name}"] == pytest.approx(plain[name], abs=1e-5)
            assert f"{site}/{name}_se" not in found
    assert changeable.store.json(run_id, "config.json")["conventions"]["directions"] == "2 random, seed 5"


def test_random_directions_leave_out_what_they_cannot_give(changeable: Finished) -> None:
    run_id = analysed(changeable.store, directions="2", relations="all", epochs="4", max_samples=FEW)
    stored = changeable.store.json(run_id, "config.json")["relations"]
    missing = {"agop_stable_rank", "agop_nfm_exponent", "agop_nfm_overlap", "agop_nfm_init_removed_overlap"}
    assert set(OF_ANY_MODEL) - set(stored) == missing
    assert not {key.rpartition("/")[2] for key in values(changeable.store, run_id)} & missing


def test_every_batch_size_gives_the_same_values(changeable: Finished) -> None:
    runs = {}
    for batch_size in (1, 7, 1024):
        forget(changeable)
        options = {"relations": ",".join(PAIRS), "max_samples": FEW, "epochs": "4", "batch_size": batch_size}
        runs[batch_size] = series(changeable.store, analysed(changeable.store, **options))
    for batch_size in (1, 7):
        assert runs[batch_size].keys() == runs[1024].keys()
        for key, of_key in runs[batch_size].items():
            assert of_key == pytest.approx(runs[1024][key], abs=1e-6), key


def forget(finished: Finished) -> None:
    """Earlier analyses, so that the next one computes."""
    finished.store.change("DELETE FROM tags WHERE key = 'nfa.analysis_digest'")


def test_the_first_of_the_stored_probe_are_analysed(changeable: Finished, exact: dict[tuple[int, int], Exact]) -> None:
    """One more example gives another value, so equality with the reference says which they are."""
    expected = Exact.of(changeable, 4, 0, FEW + 1).relations()["h_vs_m"]
    assert abs(expected - exact[4, 0].relations()["h_vs_m"]) > 1e-4
    run_id = analysed(changeable.store, max_samples=FEW + 1, epochs="4", relations="h_vs_m")
    assert values(changeable.store, run_id)["layer_0/h_vs_m"] == pytest.approx(expected, abs=1e-6)
    assert changeable.store.json(run_id, "config.json")["conventions"]["examples"] == FEW + 1


def test_all_training_examples_give_the_training_s_own_series(changeable: Finished) -> None:
    trained = series(changeable.store, changeable.run_id)
    found = series(changeable.store, analysed(changeable.store))
    for key in [f"{site}/{name}" for site in SITES for name in ("agop_nfm", "agop_nfm_init_removed")]:
        assert found[key] == pytest.approx(trained[key], abs=1e-6)
        assert found[key].keys() == trained[key].keys()


def test_bfloat16_is_close_and_says_so(changeable: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"relations": "g_vs_h,agop_nfm,h_vs_m", "max_samples": 200, "epochs": "4"}
    exact = values(changeable.store, analysed(changeable.store, **options))
    rough = analysed(changeable.store, **options, precision="bfloat16")
    found = values(changeable.store, rough)
    assert found == pytest.approx(exact, abs=0.01)
    assert found != pytest.approx(exact, abs=1e-6)
    assert changeable.store.json(rough, "config.json")["conventions"]["precision"] == "bfloat16"
    assert ("has no bfloat16 units" in capsys.readouterr().out) is not has_bfloat16_units(torch.device("cpu"))


def test_losses_are_those_the_training_logged(changeable: Finished) -> None:
    trained, found = (
        series(changeable.store, changeable.run_id),
        series(changeable.store, analysed(changeable.store, max_samples=9)),
    )
    for key in ("train/loss", "val/loss"):
        assert found[key] == {epoch: trained[key][epoch] for epoch in CHECKPOINTS}
