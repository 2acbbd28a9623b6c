"""TensorBoard event files as artifacts of a run."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from nfa import unfinished
from nfa.registry.signals import shielded
from nfa.registry.tracking import artifacts
from nfa.registry.tracking.places import local_folder
from nfa.registry.tracking.runs import TrackedRun
from nfa.registry.tracking.store import client

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "tensorboard"
PATIENCE = 60  # seconds between flushes


class EventFiles:
    """Writes scalars, histograms and figures; a (tag, step) that the run already has is not written again."""

    def __init__(self, run: TrackedRun) -> None:
        self.run = run
        local = local_folder(run.info)
        self._scratch = None if local else tempfile.mkdtemp(dir=unfinished.place())
        self.folder = local / FOLDER if local else Path(self._scratch or "")
        self._known = self._written() if run.continued else set()
        self._writer = SummaryWriter(str(self.folder), flush_secs=PATIENCE)

    def _written(self) -> set[tuple[str, int]]:
        paths = [artifacts.get(self.run.run_id, path) for path in artifacts.names(self.run.run_id, FOLDER)]
        return {
            (value.tag, event.step)
            for path in paths
            for event in EventFileLoader(str(path)).Load()
            for value in event.summary.value
        }

    def _is_new(self, tag: str, step: int) -> bool:
        known = (tag, step) in self._known
        self._known.add((tag, step))
        return not known

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers by tag."""
        with shielded():
            for tag, value in values.items():
                if self._is_new(tag, step):
                    self._writer.add_scalar(tag, value, step)

    def histograms(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Write histograms of the finite values by tag."""
        with shielded():
            for tag, tensor in tensors.items():
                if self._is_new(tag, step) and bool(tensor.isfinite().all()):
                    self._writer.add_histogram(tag, tensor.detach().float().cpu(), step)

    def figure(self, tag: str, figure: "Figure", step: int) -> None:
        """A picture."""
        with shielded():
            if self._is_new(tag, step):
                self._writer.add_figure(tag, figure, step, close=False)

    def flush(self) -> None:
        """Store everything written so far among the run's artifacts."""
        with shielded():
            self._writer.flush()
            if self._scratch:
                client().log_artifacts(self.run.run_id, self._scratch, FOLDER)

    def close(self) -> None:
        """Flush and close the files."""
        with shielded():
            self.flush()
            self._writer.close()
            if self._scratch:
                shutil.rmtree(self._scratch)
