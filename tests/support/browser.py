"""A Chromium that is told what to do, for tests of what pages do in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900")


def browser_path() -> str | None:
    """The browser that NFA_BROWSER names, or else one in PATH."""
    named = os.environ.get("NFA_BROWSER")
    return shutil.which(named) if named else next((path for name in NAMES if (path := shutil.which(name))), None)


def what_is_missing() -> str:
    """What a browser would need that is not here; nothing if it can be driven."""
    needed = {
        "Chromium or Chrome": browser_path(),
        "chromedriver": shutil.which("chromedriver"),
        "the package selenium": find_spec("selenium"),
    }
    return " and ".join(name for name, found in needed.items() if found is None)


@contextmanager
def browser() -> Iterator[Any]:
    """A driver of a browser without a window and a network, which writes down what its pages complain of."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = browser_path() or ""
    for switch in (*SWITCHES, "--force-prefers-reduced-motion", "--host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
