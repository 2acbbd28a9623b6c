"""Says in the environment which test is executed, for lines that are marked.

What is set up for several tests belongs to all that ask for it.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TEST, OUT = "COVERING_TEST", "COVERING_OUT"
TESTS: dict[str, dict[str, Any]] = {}
FIXTURES: dict[str, str] = {}  # their places by what they are called here


@contextmanager
def _executing(name: str) -> Iterator[None]:
    before = os.environ.get(TEST, "")
    os.environ[TEST] = name
    try:
        yield
    finally:
        os.environ[TEST] = before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    names = list(getattr(item, "fixturenames", ()))
    TESTS[item.nodeid] = {"seconds": 0.0, "passed": True, "fixtures": names}
    with _executing(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    if fixturedef.scope == "function":
        return (yield)
    name = f"fixture {fixturedef.argname} of {fixturedef.baseid}"
    FIXTURES[name] = fixturedef.baseid
    with _executing(name):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    test = TESTS[item.nodeid]
    test["seconds"] += report.duration
    test["passed"] = test["passed"] and report.passed
    return report  # type: ignore[no-any-return]


def pytest_sessionfinish() -> None:
    """Of this worker."""
    told = json.dumps({"tests": TESTS, "fixtures": FIXTURES})
    (Path(os.environ[OUT]) / f"{uuid.uuid4().hex}.json").write_text(told, encoding="utf-8")
