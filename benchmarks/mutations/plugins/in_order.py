"""Tests in the order in which their files are named, whatever a suite's own hooks have made of it."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The files of the given tests come one after the other."""
    files = list(dict.fromkeys(word.partition("::")[0] for word in config.args))
    items.sort(key=lambda item: files.index(item.nodeid.partition("::")[0]))
