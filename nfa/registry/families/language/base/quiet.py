"""transformers' progress bars and warnings, silenced for a while."""

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings inside, and no progress bars where standard error is not a terminal; all as before afterwards."""
    from transformers.utils import logging

    shown = sys.stderr.isatty()
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if not shown:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        # Some bars are plain tqdm, which has no switch.
        with warnings.catch_warnings(), nullcontext() if shown else redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
