"""Start several processes of one entry point."""

import logging
import os
import sys
import uuid

from nfa import unfinished
from nfa.errors import NfaError
from nfa.registry.signals import Interrupted


def launch(entrypoint: str, nproc: int) -> None:
    """Run an entry point with this program's arguments in `nproc` processes, by torchrun's launcher, and wait for them.

    This process ends as the first one ended. Signals are passed on to all of them.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=str(unfinished.place())),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "nfa", entrypoint, *sys.argv[1:])
    except SignalException as signal:
        raise Interrupted(signal.sigval) from None
    except ChildFailedError as failed:
        first = failed.failures.get(0) or next(iter(failed.failures.values()))
        if first.exitcode < 0:
            raise NfaError(f"process {first.local_rank} of {nproc} was ended by signal {-first.exitcode}") from None
        raise SystemExit(first.exitcode) from None
