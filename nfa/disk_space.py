"""A check that checkpoints fit on the disk, made before the first one is written."""

import resource
import shutil
from pathlib import Path

from nfa.errors import Refusal

MEGABYTES = 1 / 2**20


def check_space(folder: Path, *, total: int, largest: int) -> None:
    """Raise `Refusal` if `total` bytes of artifacts do not fit into a folder, or its largest file of `largest` bytes.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if free < total:
        got = f"{free * MEGABYTES:.0f} MB free at {existing}"
        remedy = "free some space, use fewer checkpoints (schedule) or a smaller network, or set MLFLOW_TRACKING_URI"
        raise Refusal(got, f"about {total * MEGABYTES:.0f} MB for this run's checkpoints", remedy)
    if limit != resource.RLIM_INFINITY and limit < largest:
        got = f"a file size limit of {limit * MEGABYTES:.1f} MB (ulimit -f)"
        allowed = f"at least {largest * MEGABYTES:.1f} MB for this run's largest file"
        raise Refusal(got, allowed, "raise the limit, or use a smaller network")
