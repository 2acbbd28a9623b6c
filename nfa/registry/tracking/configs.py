"""What runs say about themselves in their config.json."""

from typing import Any

from nfa.errors import Refusal
from nfa.registry.tracking import artifacts
from nfa.registry.tracking.finding_runs import find_run


def config(run_id: str) -> dict[str, Any]:
    """Return the `config.json` of a run, from which its workload can be rebuilt.

    Args:
        run_id: A run id, a unique prefix of one, or "latest".

    Returns:
        The content of the file.

    Raises:
        Refusal: There is no such run, or it ended before its config.json was written.
    """
    found = find_run(run_id).info.run_id
    if not artifacts.has_artifact(found, "config.json"):
        got = f"run {found} (ended before its config.json was written)"
        raise Refusal(got, "a run with a config.json", "start a new run")
    content: dict[str, Any] = artifacts.get_json(found, "config.json")
    return content
