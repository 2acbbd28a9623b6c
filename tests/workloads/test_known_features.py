"""Where a workload knows the right features, every study of alignment has their share; elsewhere nothing changes."""

from typing import Any

import pytest
import torch
import torch.nn as nn
from torch.utils.data import TensorDataset

import nfa
from nfa import reference
from nfa.analyses.alignment import Analysis
from nfa.analyses.parameters import AlignmentParameters
from nfa.errors import Refusal
from nfa.maths.known_features import Subspace
from nfa.relations import DEFAULT, KNOWN
from nfa.sinks import Memory
from tests.support.similarity_tables import read_back
from tests.support.toy_models import layers, seeded

LOSS = nn.CrossEntropyLoss(reduction="none")
PROBE = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
DIRECTIONS = torch.eye(6)[[0, 2]]
FIRST = {"0": Subspace(DIRECTIONS)}
KEYS = {f"0/{name}{end}" for name in KNOWN for end in ("", "_chance")}


def model() -> nn.Module:
    return seeded(layers, 6, 8, 3)


def analysis(known: Any, **options: Any) -> Analysis:
    data = TensorDataset(*PROBE)
    made = nfa.Supervised(model=model, loss=LOSS, train=data, val=data, known_features=known, device="cpu")
    return Analysis(made, made.model(), AlignmentParameters(**options), None)


def test_a_supervised_workload_says_what_it_is_told_and_nothing_by_itself() -> None:
    data = TensorDataset(*PROBE)
    assert nfa.Supervised(model=model, loss=LOSS, train=data, val=data).known_features() == {}
    assert analysis(FIRST).workload.known_features() == FIRST


def test_shares_are_those_of_the_reference_with_their_chance_level() -> None:
    found = analysis(FIRST)
    values = found.values(found.workload.model())
    weight = model().get_parameter("0.weight").detach()
    right = reference.share_of_subspace(reference.nfm(weight), DIRECTIONS)
    assert values["0/nfm_known"] == pytest.approx(right, abs=1e-6)
    assert values["0/agop_known_chance"] == values["0/nfm_known_chance"] == pytest.approx(2 / 6)
    assert 0 < values["0/agop_known"] < 1


def test_they_are_added_to_what_is_asked_for_and_change_none_of_it() -> None:
    plain, told = analysis({}), analysis(FIRST)
    values, more = plain.values(model()), told.values(model())
    assert plain.relations == tuple(name for name in DEFAULT if "init" not in name)
    assert told.relations == (*plain.relations, *KNOWN)
    assert more.keys() - values.keys() == KEYS
    assert {key: more[key] for key in values} == values
    assert told.described()["relations"] == list(told.relations)


def test_they_are_there_whatever_relations_are_chosen_if_their_site_is() -> None:
    assert analysis(FIRST, relations="h_vs_m").relations == ("h_vs_m", *KNOWN)
    assert analysis(FIRST, relations="h_vs_m", sites="2").relations == ("h_vs_m",)
    both = analysis(FIRST, sites="*")
    assert {key for key in both.values(model()) if "known" in key} == KEYS


def test_with_random_directions_the_share_of_agop_is_left_out_with_the_reason() -> None:
    found = analysis(FIRST, directions="2")
    assert "agop_known" not in found.relations
    assert found.left_out["agop_known"] == "it needs directions=all"
    assert {key for key in found.values(model()) if "known" in key} == {"0/nfm_known", "0/nfm_known_chance"}


def test_a_share_of_nothing_is_absent() -> None:
    still = model()
    with torch.no_grad():
        still.get_parameter("2.weight").zero_()  # no output moves
    values = analysis(FIRST).values(still)
    assert {key for key in values if "known" in key} == {"0/nfm_known", "0/nfm_known_chance"}


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"first": Subspace(DIRECTIONS)}, "site 'first'"),
        ({"2": Subspace(DIRECTIONS)}, "6 entries for site '2', whose input has 8"),
    ],
)
def test_a_site_that_is_not_there_or_reads_another_input_is_refused(known: Any, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        analysis(known)
    with pytest.raises(Refusal, match=said):
        nfa.alignment(model(), LOSS, PROBE, known_features=known)


def test_a_model_at_hand_has_them_in_its_table_and_figure_and_other_studies_do_not_take_them() -> None:
    table = nfa.alignment(model(), LOSS, PROBE, known_features=FIRST)
    assert {row.key for row in table if row.chance is not None} >= {f"0/{name}" for name in KNOWN}
    figure = table.plot()
    (panel,) = [axes for axes in figure.axes if axes.get_title() == "AGOP in the known features"]
    assert [float(line.get_xdata()[0]) for line in panel.get_lines() if line.get_marker() == "|"] == [
        pytest.approx(2 / 6)
    ]
    with pytest.raises(Refusal, match="known_features"):
        nfa.gradient_flow(model(), LOSS, PROBE, known_features=FIRST)


def test_a_watch_has_their_series_its_table_their_rows_and_its_figure_a_line_at_chance() -> None:
    memory, net = Memory(), model()
    with nfa.watch(net, LOSS, PROBE, known_features=FIRST, sink=memory) as watch:
        watch.record(0)
        watch.record(1)
    assert memory.series.keys() >= KEYS
    assert {key for key, _ in read_back(memory.texts["similarities.csv"])} >= KEYS
    panels = {axes.get_title(): axes for axes in memory.figures["all_relations"].axes}
    lines = {title: {str(line.get_label()): line for line in axes.get_lines()} for title, axes in panels.items()}
    assert list(lines["AGOP in the known features"]["chance"].get_ydata()) == [pytest.approx(2 / 6)] * 2
    assert "chance" not in lines["AGOP vs NFM"]
