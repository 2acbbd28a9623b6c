"""The active MLflow run."""

import logging
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfa import content
from nfa.errors import NfaError, Refusal, headline, reading
from nfa.masking import learn, masked, tellable
from nfa.sinks.pictures import write_pictures
from nfa.sinks.sink import needing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

BATCH = 1000  # metrics that one call takes
TAG_LENGTH = 5000


class MlflowRun:
    """The run that this process has started; `Refusal` where there is none.

    It is the one sink in which a training can go on: it gives back the `series`, files and `tensors` that it holds.
    """

    def __init__(self) -> None:
        with needing("mlflow"):
            import mlflow
        if (active := mlflow.active_run()) is None:
            remedy = "with mlflow.start_run(): … around the training, or sink="
            raise Refusal("no active MLflow run", "a run to record into", remedy)
        self.uri, self.run_id = str(mlflow.get_tracking_uri()), str(active.info.run_id)
        learn(self.uri)
        self._client = mlflow.MlflowClient(self.uri)
        with self._answering():
            self._info = self._client.get_run(self.run_id).info

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Whatever store or disk raise, as one error that names the run and tells no password."""
        from mlflow.exceptions import MlflowException

        said_in_full = logging.getLogger("mlflow.store.db.utils")  # prints the traceback of what it raises
        before, said_in_full.disabled = said_in_full.disabled, True
        try:
            yield
        except (MlflowException, OSError) as error:
            remedy = "mend the store (address, permissions, disk space); what was recorded before is kept"
            said = f"MLflow run {self.run_id[:12]} in {self.uri}: {headline(error)}"
            raise NfaError(f"{said}\n  do: {remedy}") from tellable(error)
        finally:
            said_in_full.disabled = before

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self._info.run_name)

    @property
    def link(self) -> str:
        """Where to look at it."""
        return run_link(self.uri, self._info.experiment_id, self.run_id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        with self._answering():
            for start in range(0, len(metrics), BATCH):
                self._client.log_batch(self.run_id, metrics=metrics[start : start + BATCH])

    def text(self, name: str, content: str) -> None:
        self._put(name, lambda file: file.write_text(content + "\n", encoding="utf-8"))

    def figure(self, name: str, figure: "Figure") -> None:
        with self._answering(), tempfile.TemporaryDirectory() as folder:
            write_pictures(figure, Path(folder), name)
            self._client.log_artifacts(self.run_id, folder, "plots")

    # ---- what a training that goes on in its run needs

    def tag(self, key: str, value: str) -> None:
        """A tag of the run."""
        with self._answering():
            self._client.set_tag(self.run_id, key, masked(value)[:TAG_LENGTH])

    def has(self, name: str) -> bool:
        """Whether the run has a file of that name."""
        folder = str(Path(name).parent)
        with self._answering():
            found = self._client.list_artifacts(self.run_id, None if folder == "." else folder)
        return name in {item.path for item in found}

    def series(self) -> dict[str, dict[int, float]]:
        """Everything that has been logged: key → step → value."""
        with self._answering():
            keys = self._client.get_run(self.run_id).data.metrics
            history = {key: self._client.get_metric_history(self.run_id, key) for key in keys}
        return {key: {item.step: item.value for item in items} for key, items in history.items()}

    def put_tensors(self, name: str, tensors: "Mapping[str, Tensor]") -> None:
        """A safetensors file, with its digest."""
        self._put(name, partial(content.write_tensors, tensors=tensors))

    def tensors(self, name: str) -> "dict[str, Tensor]":
        """Those of a file that `put_tensors` has written; `Refusal` where it is not what was written."""
        with tempfile.TemporaryDirectory() as folder:
            with self._answering():
                file = self._file(name, folder)
            remedy = f"restore it from a copy of the run, or delete the run (mlflow runs delete --run-id {self.run_id})"
            with reading(f"{name} of run {self.run_id[:12]}", "the file as it was written", remedy):
                found: dict[str, Tensor] = content.of_sealed(content.read_tensors(file))[0]
        return found

    def _file(self, name: str, folder: str) -> Path:
        """The file itself where it is on this machine, else a copy in a folder."""
        from mlflow.utils.file_utils import local_file_uri_to_path

        address = str(self._info.artifact_uri)
        if urllib.parse.urlparse(address).scheme in ("", "file"):
            return Path(local_file_uri_to_path(address), name)  # type: ignore[no-untyped-call]
        return Path(self._client.download_artifacts(self.run_id, name, folder))

    def _put(self, name: str, write: Callable[[Path], Any]) -> None:
        path = Path(name)
        with self._answering(), tempfile.TemporaryDirectory() as folder:
            write(Path(folder, path.name))
            parent = None if path.parent == Path() else str(path.parent)
            self._client.log_artifact(self.run_id, str(Path(folder, path.name)), parent)


def run_link(uri: str, experiment: str, run_id: str) -> str:
    """Where to look at a run: an address on a server, else the command that opens the UI and the path in it."""
    path = f"#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"
    if urllib.parse.urlparse(uri).scheme in ("http", "https"):
        return masked(f"{uri}/{path}")
    return masked(f"http://127.0.0.1:5000/{path}  (after: mlflow server --backend-store-uri {uri})")
