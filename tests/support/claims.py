"""Processes that claim a run at the same moment."""

import multiprocessing

from nfa.registry.tracking.claims import Claim, Taken
from nfa.registry.tracking.store import client


def _race(uri: str, run_id: str, gate: object, won: object) -> None:
    import mlflow

    mlflow.set_tracking_uri(uri)
    claim = Claim.after(client().get_run(run_id))
    gate.wait()  # type: ignore[attr-defined]
    try:
        claim.write()
        won.put(claim.text)  # type: ignore[attr-defined]
    except Taken:
        won.put("")  # type: ignore[attr-defined]


def winners(uri: str, run_id: str, number: int = 4) -> list[str]:
    """What those processes have signed who were told that the run is theirs."""
    context = multiprocessing.get_context("forkserver")
    gate, won = context.Barrier(number), context.SimpleQueue()
    processes = [context.Process(target=_race, args=(uri, run_id, gate, won)) for _ in range(number)]
    for process in processes:
        process.start()
    found = [won.get() for _ in processes]
    for process in processes:
        process.join()
    return [text for text in found if text]
