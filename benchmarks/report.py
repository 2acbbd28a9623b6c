"""A report of 1,000 runs with 100 keys of 100 steps each: processor time, memory and the size of the page."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import report_store
from benchmarks.record import store

ONE = """
import json, os, resource, time
from nfa.registry.report import page, report
from nfa.registry.report.config import ReportConfig
import jinja2, mlflow.store.tracking.sqlalchemy_store, scipy.stats
imported = time.process_time()
report.report(ReportConfig(run_id="params.dataset = 'digits'", output_dir="page"))
seconds = time.process_time() - imported
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak": peak, "bytes": os.path.getsize("page/report.html")}))
"""
KINDS = {"5 optimizers × 200 seeds": False, "1,000 learning rates": True}


def measured(*, apart: bool) -> dict[str, float]:
    """CPU seconds above imports, peak MB of the process and bytes of the page, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        address = report_store.make(Path(scratch), apart=apart)
        env = {**os.environ, "MLFLOW_TRACKING_URI": address, "PYTHONPATH": str(Path(__file__).parent.parent)}
        command = [sys.executable, "-c", ONE]
        done = subprocess.run(command, cwd=scratch, env=env, check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    """Measure both kinds of stores and record."""
    results = {}
    for kind, apart in KINDS.items():
        found = measured(apart=apart)
        results[f"{kind}: CPU time above imports, s"] = round(found["seconds"], 1)
        results[f"{kind}: peak memory of the process, MB"] = round(found["peak"])
        results[f"{kind}: size of the page, MB"] = round(found["bytes"] / 1e6, 1)
    notes = [
        f"{report_store.RUNS:,} runs of {len(report_store.KEYS)} keys with {report_store.STEPS} steps each, written "
        "straight into the tables of an SQLite store by benchmarks/report_store.py; the runs have no files.",
        "The table of the page has the last value of every key of every run; series are read only of the keys that are "
        "drawn. Of so many runs, these are losses, scores, and some relations without their errors and levels.",
    ]
    store("report", "A report of 1,000 runs", results, notes)


if __name__ == "__main__":
    main()
