"""A sink that writes to the active MLflow run."""

import logging
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfa import content, unfinished
from nfa.errors import NfaError, Refusal, headline, reading
from nfa.extras import check_extra
from nfa.masking import learn, masked, tellable
from nfa.sinks.pictures import write_pictures
from nfa.sinks.sink import OTHERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

BATCH = 1000  # metrics per call
TAG_LENGTH = 5000
WORKFLOW = "workflowType=machine_learning"


class MlflowRun:
    """Write to the MLflow run that this process has started.

    It is the only sink in which a training can be resumed, because it can read back the series, files and tensors of
    the run.

    Raises:
        Refusal: No MLflow run is active, or MLflow is not installed.
    """

    def __init__(self) -> None:
        check_extra("the sink MlflowRun", "registry", "mlflow", otherwise=OTHERS)
        import mlflow

        if (active := mlflow.active_run()) is None:
            remedy = "put the training inside `with mlflow.start_run():`, or pass sink="
            raise Refusal("a watch without an active MLflow run", "an active run to record into", remedy)
        self.uri, self.run_id = str(mlflow.get_tracking_uri()), str(active.info.run_id)
        learn(self.uri)
        self._client = mlflow.MlflowClient(self.uri)
        with self._answering():
            self._info = self._client.get_run(self.run_id).info

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn any error of the store or the disk into one error that names the run and reveals no password."""
        from mlflow.exceptions import MlflowException

        said_in_full = logging.getLogger("mlflow.store.db.utils")  # it prints the traceback of every error it raises
        before, said_in_full.disabled = said_in_full.disabled, True
        try:
            yield
        except (MlflowException, OSError) as error:
            remedy = "check the store (address, permissions, disk space); what was recorded before is kept"
            said = f"MLflow run {self.run_id[:12]} in {self.uri}: {headline(error)}"
            raise NfaError(f"{said}\n  do: {remedy}") from tellable(error)
        finally:
            said_in_full.disabled = before

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self._info.run_name)

    @property
    def link(self) -> str:
        """The address of the run in the MLflow UI."""
        return run_link(self.uri, self._info.experiment_id, self.run_id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        with self._answering():
            for start in range(0, len(metrics), BATCH):
                self._client.log_batch(self.run_id, metrics=metrics[start : start + BATCH])

    def text(self, name: str, content: str) -> None:
        """Write a text artifact."""
        self._put(name, lambda file: file.write_text(content + "\n", encoding="utf-8"))

    def figure(self, name: str, figure: "Figure") -> None:
        """Write a figure as .png and .pdf to the folder `plots` of the run."""
        with self._answering(), tempfile.TemporaryDirectory() as folder:
            write_pictures(figure, Path(folder), name)
            self._client.log_artifacts(self.run_id, folder, "plots")

    # ---- what a training that goes on in its run needs

    def tag(self, key: str, value: str) -> None:
        """Set a tag of the run."""
        with self._answering():
            self._client.set_tag(self.run_id, key, masked(value)[:TAG_LENGTH])

    def tags(self) -> dict[str, str]:
        """Return the tags of the run."""
        with self._answering():
            found: dict[str, str] = self._client.get_run(self.run_id).data.tags
        return found

    def files(self, folder: str = "") -> set[str]:
        """Return the paths of the artifacts in a folder of the run."""
        with self._answering():
            return {item.path for item in self._client.list_artifacts(self.run_id, folder or None)}

    def has(self, name: str) -> bool:
        """Tell whether the run has an artifact at this path."""
        return name in self.files(_folder(name))

    def series(self, known: Mapping[str, Mapping[int, float]] = {}) -> dict[str, Mapping[int, float]]:
        """Return everything that has been logged: key → step → value; what is `known` is not read again."""
        with self._answering():
            keys = self._client.get_run(self.run_id).data.metrics
            return {key: known[key] if key in known else self._series_of(key) for key in keys}

    def _series_of(self, key: str) -> dict[int, float]:
        return {item.step: item.value for item in self._client.get_metric_history(self.run_id, key)}

    def put_tensors(self, name: str, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] = {}) -> None:
        """Write tensors to a safetensors artifact, with a digest of its content."""
        self._put(name, lambda file: content.write_tensors(file, tensors, metadata))

    def tensors(self, name: str) -> "dict[str, Tensor]":
        """Read the tensors that `put_tensors` has written; `Refusal` where the file is damaged."""
        found: dict[str, Tensor] = self._read(name, content.read_tensors)[0]
        return found

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON object with its digest; `Refusal` where the file is damaged."""
        found: dict[str, Any] = self._read(name, content.read_json)
        return found

    def _read(self, name: str, reader: Callable[[Path], content.Found]) -> Any:
        with tempfile.TemporaryDirectory(dir=unfinished.place()) as folder:
            with self._answering():
                local = self.local_folder()
                file = local / name if local else Path(self._client.download_artifacts(self.run_id, name, folder))
            remedy = f"restore it from a copy of the run, or delete the run (mlflow runs delete --run-id {self.run_id})"
            with reading(f"{name} of run {self.run_id[:12]}", "the file as it was written", remedy):
                return content.of_sealed(reader(file))

    def local_folder(self) -> Path | None:
        """Return the artifact folder of the run if it is on this machine, else None."""
        from mlflow.utils.file_utils import local_file_uri_to_path

        address = str(self._info.artifact_uri)
        if urllib.parse.urlparse(address).scheme not in ("", "file"):
            return None
        return Path(local_file_uri_to_path(address))

    def _put(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file completely or not at all; a local artifact folder also survives that this process is killed
        meanwhile.
        """
        with self._answering():
            if local := self.local_folder():
                unfinished.write(local / name, write)
                return
            with tempfile.TemporaryDirectory(dir=unfinished.place()) as folder:
                write(Path(folder, Path(name).name))
                self._client.log_artifact(self.run_id, str(Path(folder, Path(name).name)), _folder(name) or None)


def _folder(name: str) -> str:
    """Return the folder of an artifact path; empty at the root."""
    return "" if Path(name).parent == Path() else str(Path(name).parent)


def run_link(uri: str, experiment: str, run_id: str) -> str:
    """Return where to look at a run: its address on a server, or else the address after a command that opens the UI.

    Args:
        uri: The address of the tracking store.
        experiment: The id of the experiment.
        run_id: The id of the run.

    Returns:
        The address, without passwords.
    """
    return _page(uri, f"{experiment}/runs/{run_id}?{WORKFLOW}")


def children_link(uri: str, experiment: str, run_id: str) -> str:
    """Return where to compare the children of a run in charts.

    Args:
        uri: The address of the tracking store.
        experiment: The id of the experiment.
        run_id: The id of the parent run.

    Returns:
        The address, without passwords. Runs that are sorted by name are not hidden behind their parent.
    """
    asked = {
        "compareRunsMode": "CHART",
        "searchFilter": f"tags.mlflow.parentRunId = '{run_id}'",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": "true",
    }
    return _page(uri, f"{experiment}/runs?{WORKFLOW}&{urllib.parse.urlencode(asked, quote_via=urllib.parse.quote)}")


def _page(uri: str, path: str) -> str:
    """Return the address of a page of the UI, or else its address after a command that opens the UI."""
    if urllib.parse.urlparse(uri).scheme in ("http", "https"):
        return masked(f"{uri}/#/experiments/{path}")
    return masked(f"http://127.0.0.1:5000/#/experiments/{path}  (after: mlflow server --backend-store-uri {uri})")
