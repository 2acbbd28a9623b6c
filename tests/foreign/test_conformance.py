"""Every study on the three families and on models of other people: right in both precisions, and nothing disturbed."""

import pytest

from tests.support.models.table import FAMILIES, FOREIGN, FURTHER, MODELS

CASES = [
    pytest.param(model, id=name, marks=() if model.quick else pytest.mark.slow)
    for name, model in {**MODELS, **FURTHER}.items()
]


def test_there_are_three_families_and_thirteen_foreign_models():
    assert len(FAMILIES) == 3
    assert len(FOREIGN) == 13


@pytest.mark.parametrize("model", CASES)
def test_every_study_agrees_with_its_reference_and_disturbs_nothing(model):
    found = model.check()
    assert found.ok, str(found)
    assert sorted(found.unseen) == sorted(model.unseen)
    assert found.unchecked == []
