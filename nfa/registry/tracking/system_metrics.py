"""MLflow's system metrics of runs: use of processor, memory, disk, network and GPU, under `system/…`.

They are sampled if MLflow's own switch says so (MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING, or
`mlflow.enable_system_metrics_logging()`). What is sampled, how often, and its keys are MLflow's; a thread of ours
writes it, because MLflow's would wait for a dead server at the end, and might print a password.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import mlflow
from mlflow.entities import Metric, Run
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

from nfa.bookkeeping import MACHINE
from nfa.console import stage
from nfa.errors import headline
from nfa.masking import masked
from nfa.registry.tracking import places
from nfa.registry.tracking.series_file import latest_of
from nfa.registry.tracking.store import StoreError, client

PATIENCE = 5.0  # seconds that the end of a run waits for the last sample


class SystemMetrics:
    """Samples the machine while a run is open; whatever fails here, the run goes on.

    `check()` is called before each write, and an error that it raises ends the sampling.
    """

    def __init__(self, run: Run, check: Callable[[], None]) -> None:
        self.run_id, self._check = run.info.run_id, check
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample_on, daemon=True)

    def start(self) -> None:
        """Start sampling, if MLflow's switch is on and MLflow does not sample this run itself."""
        active = mlflow.active_run()
        wanted = MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get()
        if wanted and not (active and active.info.run_id == self.run_id):
            self._thread.start()

    def stop(self) -> None:
        """Write a last sample; a store that does not answer is not waited for."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(PATIENCE)

    def _sample_on(self) -> None:
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            logging.getLogger(SystemMetricsMonitor.__module__).disabled = True  # it says of every run: no GPU
            made: Any = SystemMetricsMonitor
            monitor = made(self.run_id, tracking_uri=places.store_address())
            for step in count(self._next_step()):
                self._collect(monitor)
                self._write(monitor, step)
                if self._stopped.is_set():
                    return
        except Exception as error:  # a driver or another package may raise anything
            stage("notice", f"no more system metrics of this run: {masked(headline(error))}")

    def _next_step(self) -> int:
        """Return the step after the last one of a run that is continued; 0 for a new one."""
        logged = latest_of(client().get_run(self.run_id))
        return max((one.step + 1 for one in logged if one.key.startswith(MACHINE)), default=0)

    def _collect(self, monitor: Any) -> None:
        """Take the samples of a row, fewer if the run ends meanwhile."""
        for _ in range(monitor.samples_before_logging):
            monitor.collect_metrics()
            if self._stopped.wait(monitor.sampling_interval):
                return

    def _write(self, monitor: Any, step: int) -> None:
        prefix, now = MACHINE + (f"{monitor.node_id}/" if monitor.node_id else ""), int(time.time() * 1000)
        found = monitor.aggregate_metrics()
        for one in monitor.monitors:
            one.clear_metrics()
        rows = [Metric(prefix + key, value, now, step) for key, value in found.items() if math.isfinite(value)]
        self._check()
        try:
            client().log_batch(self.run_id, metrics=rows)
        except StoreError:
            return  # one missed sample; a broken store fails the next logging call
