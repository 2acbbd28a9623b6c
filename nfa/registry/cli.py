"""The command line: from typed words to a config, and from the way a program ended to its exit code.

Nothing heavy is imported before the words are parsed, so mistakes are reported at once.
"""

import dataclasses
import difflib
import gc
import itertools
import os
import sys
import time
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from nfa import masking
from nfa.errors import NfaError, Refusal, headline
from nfa.extras import EXTRAS, check_extra, is_installed
from nfa.registry import doors, signals
from nfa.registry.commands import typed_command
from nfa.registry.entry_points import entry_points
from nfa.registry.importing import importing
from nfa.registry.places import named
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.typed_values import value_of

Config = TypeVar("Config")


def parse(config_type: type[Config], argv: Sequence[str]) -> Config:
    """Build a `config_type` from words such as `--name value` or `--name=value`; raise `Refusal` if they do not fit."""
    fields = {item.name: item for item in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(config_type)
    words = _pairs(argv, fields)
    return config_type(**{name: value_of(fields[name], hints[name], text) for name, text in words.items()})


def _pairs(argv: Sequence[str], fields: Mapping[str, Any]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in fields:
            parts = [field for field in fields if name in field.split("_")]  # such as trial_seeds for seeds
            near = [name] if name in fields else dict.fromkeys([*difflib.get_close_matches(name, fields, n=1), *parts])
            remedy = f"did you mean {' or '.join(f'--{one}' for one in near)}?" if near else "see --help"
            got = f"parameter {name!r}" if word.startswith("--") else f"word {word!r}"
            raise Refusal(got, ", ".join(fields), remedy)
        if name in pairs:
            raise Refusal(f"--{name} given twice", "each parameter once", f"keep one --{name}")
        value = text if equals else next(words, None)
        if value is None:
            raise Refusal(f"--{name} without a value", f"--{name} VALUE", f"add a value after --{name}")
        pairs[name] = value
    return pairs


def show(page: str) -> None:
    """Print a page of help; a reader that closes the pipe early, such as `head`, is not an error."""
    try:
        print(page, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def help_text(config_type: type, name: str) -> str:
    """Return the `--help` page of an entry point."""
    lines = [f"{typed_command(name)} [--parameter value ...]", "", (config_type.__doc__ or "").strip(), ""]
    for item in dataclasses.fields(config_type):
        allowed = ", ".join(item.metadata["choices"])
        default = repr(item.default) if item.default == "" else item.default
        lines.append(
            f"  --{item.name} (default {default})\n      {item.metadata['help']}" + (f" [{allowed}]" if allowed else "")
        )
    return "\n".join(lines)


def main(name: str) -> typing.NoReturn:
    """Start an entry point with this process's command-line arguments, and exit as `run` does."""
    run(name, entry_points()[name].parameters, starter(name))


def starter(name: str) -> Callable[[Any], None]:
    """Return the function that starts an entry point: it checks the parameters first and then imports what it needs."""
    point = entry_points()[name]

    def start(typed: Any) -> None:
        check_extra(name, point.extra)
        config = named(point.becomes)(typed) if point.becomes else typed
        found, begun = doors.check(point, config), time.perf_counter()
        with importing():
            begin = named(point.start)
        if point.look:
            begin(config, Stopwatch({"import": time.perf_counter() - begun}), found)
        else:
            begin(config)

    return start


def run(name: str, config_type: type[Config], start: Callable[[Config], None]) -> typing.NoReturn:
    """Parse the command line, run `start`, and exit: 0 done, 1 failed, 2 refused, 130 SIGINT, 143 SIGTERM."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        show(help_text(config_type, name))
        sys.exit(0)

    def work() -> None:
        signals.listen()
        masking.mask_process()
        start(parse(config_type, _unstored(sys.argv[1:])))

    _leave(_run(work))


def _unstored(argv: Sequence[str]) -> Sequence[str]:
    """Return the words; under `mlflow run`, which stores them, raise `Refusal` if one of them contains a password."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    told = [*_telling(argv)]
    if not run_id or not told:
        return argv
    store = os.environ.get("MLFLOW_TRACKING_URI", "")
    database = "DATABASE-OF-THE-SERVER" if store.startswith("http") else store
    raise Refusal(
        f"a password in {', '.join(told)}: MLflow has stored it in run {run_id}",
        "parameters without a password",
        f"{masking.INSTEAD}; then delete that run for good, with MLFLOW_TRACKING_URI={store}: mlflow runs delete "
        f"--run-id {run_id}; mlflow gc --run-ids {run_id} --backend-store-uri {database}; then run VACUUM in the "
        "database, because its files may keep deleted rows",
    )


def _telling(argv: Sequence[str]) -> Iterator[str]:
    """Yield the names of the parameters whose values contain a password."""
    for before, word in itertools.pairwise(["", *argv]):
        if masking.carries_password(word):
            yield (word if word.startswith("--") else before).partition("=")[0]


def _run(work: Callable[[], None]) -> int:
    try:
        work()
    except signals.Interrupted as interrupted:
        return _stopped(interrupted)
    except Exception as error:
        if (stop := signals.stopped()) and _of_the_store(error):
            return _stopped(stop)  # the call was given up because of the signal
        if isinstance(error, NfaError):
            print(f"error: {error}", file=sys.stderr)
            _end_runs("failed", str(error))
            return error.exit_code
        if _of_the_store(error):
            said = f"the tracking store or a disk failed: {headline(error)}\n  do: fix it, then run the command again"
            print(f"error: {masking.masked(said)}", file=sys.stderr)
            _end_runs("failed", said)
            return NfaError.exit_code
        traceback.print_exc()
        _end_runs("failed", repr(error))
        return 1
    return 0


def _of_the_store(error: Exception) -> bool:
    store = sys.modules.get("nfa.registry.tracking.store")
    return store is not None and store.is_of_store(error)


def _stopped(stop: signals.Interrupted) -> int:
    print(f"stopped by {stop}", file=sys.stderr)
    _end_runs("killed", str(stop))
    return stop.exit_code


def _end_runs(state: str, reason: str) -> None:
    """Store how the program ended in every run that is still open, and in the one that `mlflow run` created."""
    tracked = os.environ.get("MLFLOW_RUN_ID") or "nfa.registry.tracking.runs" in sys.modules
    if tracked and all(map(is_installed, EXTRAS["registry"])):
        from nfa.registry import tracking

        tracking.end_unended(state, reason)


def _leave(code: int) -> typing.NoReturn:
    """Exit; without Python's cleanup if a call to a store still hangs, because the cleanup would wait for it."""
    calls = sys.modules.get("nfa.registry.tracking.calls")
    if calls and calls.is_hanging():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # Python would look through all modules for garbage once more, which takes up to a second
    sys.exit(code)
