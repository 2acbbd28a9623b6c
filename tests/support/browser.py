"""A Chromium that is told what to do, for tests of what pages do in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900")


def browser_path() -> str | None:
    """The browser that NFA_BROWSER names, or one in PATH, if it can be driven."""
    named = os.environ.get("NFA_BROWSER")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    return found if found and shutil.which("chromedriver") else None


@contextmanager
def browser(path: str, downloads: Path | None = None) -> Iterator[Any]:
    """A driver of a browser without a window and a network, which writes down what its pages complain of."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = path
    for switch in (*SWITCHES, "--force-prefers-reduced-motion", "--host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads or "")})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
