"""The page of a study: one file that needs no network, with every plot that can be made."""

import re
import warnings
from dataclasses import replace

import optuna
import pytest

from nfa.registry.sweeps import study_page as pages
from nfa.registry.sweeps.study_page import sections, study_page
from nfa.registry.sweeps.study_table import StudyTable
from tests.support.study_tables import classifier, optuna_study, two_objectives

ONE = [
    "History of val/loss",
    "Values during training",
    "Importance of the parameters",
    "val/loss by each parameter",
    "val/loss over pairs of parameters",
    "val/loss across all parameters",
    "Timeline",
]


@pytest.fixture(autouse=True)
def quiet_log() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def plots(page: str) -> int:
    return len(re.findall(r'<div id="plot-\d+"', page))


def missing(page: str) -> list[str]:
    return re.findall(r"<p>Not drawn: (.*?)</p>", page)


@pytest.fixture(scope="module")
def page() -> str:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return study_page(optuna_study(classifier()), classifier())


def test_page_holds_plotly_once_and_fetches_nothing(page: str) -> None:
    assert page.count('<script id="plotly">') == 1
    assert page.count("* plotly.js v") == 1
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page)


def test_page_has_every_plot_below_a_heading_and_a_sentence(page: str) -> None:
    assert headings(page) == ONE
    assert plots(page) == len(ONE)
    assert missing(page) == []
    assert len(re.findall(r"</h2>\n<p>[A-Z<v][^<]+\.</p>", page)) == len(ONE)


def test_page_of_two_objectives_has_their_front_and_both_in_turn() -> None:
    table = two_objectives()
    found = study_page(optuna_study(table), table)
    assert headings(found)[:3] == ["Pareto front", "History of val/accuracy", "History of seconds"]
    assert [name for name in headings(found) if name.startswith("seconds")] == [
        "seconds by each parameter", "seconds over pairs of parameters", "seconds across all parameters",
    ]  # fmt: skip
    assert missing(found) == ["With several objectives, no values are reported during training."]
    assert "Objective Value" not in found.partition("<body>")[2]


def test_a_study_without_a_finished_trial_says_so_instead_of_plots() -> None:
    table = classifier()
    table = replace(table, rows=tuple(row for row in table.rows if row.state == "failed"))
    found = study_page(optuna_study(table), table)
    assert headings(found) == ONE
    assert plots(found) == 1  # the timeline; Optuna does not show the course of those that failed
    assert missing(found).count("No trial has finished.") == 4
    assert "0 trials finished, but 10 are needed." in missing(found)


def test_one_parameter_has_no_pairs() -> None:
    table = classifier()
    rows = tuple(replace(row, parameters={"lr": row.parameters["lr"]}) for row in table.rows)
    table = replace(table, rows=rows, axes=table.axes[:1])
    assert missing(study_page(optuna_study(table), table)) == [
        "Fewer than two parameters varied among the finished trials."
    ]


def test_a_plot_that_fails_is_left_out_with_the_reason_and_the_log_is_as_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        warnings.warn("loud", stacklevel=1)
        raise KeyError("no <axis>\nof that name")

    monkeypatch.setattr(pages.visualization, "plot_slice", fails)
    table = classifier()
    study = optuna_study(table)
    found = study_page(study, table)
    assert plots(found) == len(ONE) - 1
    (reason,) = missing(found)
    assert reason.startswith("Optuna failed with ")
    assert "no &lt;axis&gt;" in reason
    assert "Traceback" not in found.partition("<body>")[2]
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    assert capsys.readouterr() == ("", "")


def test_names_are_text_not_markup() -> None:
    table = replace(classifier(), name="<b>x</b>", objectives=("</script><i>y",))
    body = study_page(optuna_study(table), table).partition("<body>")[2]
    assert "<b>" not in body
    assert "<i>" not in body


def test_contours_are_of_the_most_important_parameters_that_varied() -> None:
    def drawn(table: StudyTable) -> list[str]:
        return pages._leading(optuna_study(table), table, 0)

    assert drawn(classifier()) == ["lr", "optimizer", "width"]
    table = two_objectives()
    same = tuple(replace(row, parameters={**row.parameters, "lr": 0.01}) for row in table.rows)
    assert drawn(replace(table, rows=same)) == ["width", "optimizer"]


def test_more_than_three_objectives_have_no_front_in_one_plot() -> None:
    table = two_objectives()
    rows = tuple(replace(row, values=(*row.values, 1.0, 2.0)) for row in table.rows)
    table = replace(table, rows=rows, objectives=("a", "b", "c", "d"), maximise=(False,) * 4)
    front = sections(optuna_study(table), table)[0]
    assert front.missing == "More than three objectives cannot be drawn in one plot."


def test_the_best_value_so_far_is_drawn_in_steps() -> None:
    history = sections(optuna_study(classifier()), classifier())[0].draw()
    (best,) = [trace for trace in history.data if trace.mode == "lines"]
    assert best.line.shape == "hv"
