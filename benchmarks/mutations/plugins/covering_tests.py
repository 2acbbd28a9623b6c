"""Tells the tracer which test is executed. What is set up for several tests belongs to all that ask for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from covering import HERE, TEST


@contextmanager
def _executing(name: str) -> Iterator[None]:
    before = os.environ.get(TEST, "")
    HERE[0].switch(name)
    try:
        yield
    finally:
        HERE[0].switch(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    names = list(getattr(item, "fixturenames", ()))
    HERE[0].tests[item.nodeid] = {"seconds": 0.0, "passed": True, "fixtures": names}
    with _executing(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    if fixturedef.scope == "function":
        return (yield)
    name = f"fixture {fixturedef.argname} of {fixturedef.baseid}"
    HERE[0].fixtures[name] = fixturedef.baseid
    with _executing(name):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    test = HERE[0].tests[item.nodeid]
    test["seconds"] += report.duration
    test["passed"] = test["passed"] and report.passed
    return report  # type: ignore[no-any-return]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """A worker is killed that takes long to exit, and a whole suite has many lines to tell."""
    HERE[0].save()
