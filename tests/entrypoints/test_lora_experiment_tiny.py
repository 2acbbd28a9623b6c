"""The experiment as a new user asks for it: the byte-level base model, made here, and (almost) nothing else said."""

from pathlib import Path

import pytest

from tests.support.analyses import DrawOnly
from tests.support.processes import run
from tests.support.stores import Store

FIGURE = "comparison_random_vs_svd"  # those of the trainings, teachers and factors are drawn in their own tests


@pytest.mark.slow  # test_lora_experiment.py has the same experiment on a smaller base, with two seeds
def test_it_answers_its_question_with_figures(fresh: Store, tmp_path: Path) -> None:
    cache = {"NFA_CACHE": str(tmp_path / "cache")}
    ended = run(fresh, [], entrypoint="lora_experiment", pictures=True, before=DrawOnly(FIGURE), **cache)
    assert ended.code == 0, ended.output
    parent = next(one for one in fresh.runs() if fresh.tags(one)["nfa.entrypoint"] == "lora_experiment")
    found = fresh.json(parent, "comparison.json")
    assert {one["arm"].split(",")[0] for one in found["comparisons"]} == {"svd residual", "svd warm"}
    for one in found["comparisons"]:
        for at in ("at_equal_steps", "at_equal_compute"):
            assert one[at]["seeds"] == 3
            assert one[at]["low"] < one[at]["mean"] < one[at]["high"]
    random = next(arm for arm in found["arms"] if arm["start"] == "random")
    assert random["final_loss"] < random["initial_loss"] - 0.03
    for path in ("comparison_report.txt", "plots/comparison_random_vs_svd.png"):
        assert fresh.artifact(parent, path).stat().st_size > 1000
    assert "Traceback" not in ended.output
