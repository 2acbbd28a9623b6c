"""Checkpoints of a watched model at the recorded steps, so that they can be analysed by run id."""

import json
from collections.abc import Collection

from nfa import __version__
from nfa.checkpoint_files import ANSWERS, path_of
from nfa.content import digest_of
from nfa.disk_space import check_space
from nfa.errors import Refusal
from nfa.learned import check_storable, frozen_names, learned_state
from nfa.observe.answers import answers
from nfa.observe.door import few_of
from nfa.sinks import MlflowRun
from nfa.watching.models import without_autocast
from nfa.watching.output import Output
from nfa.workloads.packed_examples import PROBE_EXAMPLES, packed
from nfa.workloads.probe import Probe

WATCHED, MAKER = "watched", "watch"  # the tags nfa.workload and nfa.entrypoint
CONFIG, IDS = "config.json", "example_ids.json"
SPLITS = ("train", "val", "test", "probe")


class Checkpoints:
    """Store checkpoints (`checkpoints/step_000040.safetensors` …) in an MLflow run.

    A checkpoint holds the trained weights, and the model's answers on the first eight examples of the probe, whose
    inputs are in `probe_examples.safetensors`. Beside the checkpoints the run has what every tracked training has:
    config.json, example_ids.json and tags. Creating this object writes nothing; it raises `Refusal` for a sink that is
    not an MLflow run, for a prefix, and for a run that has such files from elsewhere.
    """

    def __init__(self, output: Output, workload: Probe) -> None:
        self.output, self.workload, self.model = output, workload, workload.network
        self.frozen = frozen_names(self.model)  # a parameter that is frozen later has been trained before
        self.run = _run_of(output)
        check_storable(self.model, "checkpoints=True for a model", "leave checkpoints out")
        self.tags, files = self.run.tags(), self.run.files()
        self._check_made_here(files)
        self.digest = digest_of([workload.all.inputs, workload.all.targets])
        self.begun = CONFIG in files
        if self.begun:
            self._check_probe()
        self.examples = packed(few_of(workload))
        self.stored = self.run.files("checkpoints")
        self.trained = self.tags.get("nfa.trained") == "true"

    def _check_made_here(self, files: Collection[str]) -> None:
        maker, mine = self.tags.get("nfa.entrypoint"), [name for name in (CONFIG, IDS, PROBE_EXAMPLES) if name in files]
        if maker != MAKER and (maker or mine):
            what = f"was made by {maker}" if maker else f"has another {mine[0]}"
            got = f"checkpoints=True in run {self.run.run_id[:12]}, which {what}"
            raise Refusal(got, "a run for the watched training alone", "leave checkpoints out, or start another run")

    def _check_probe(self) -> None:
        """Raise `Refusal` if the run was watched on other examples, since its stored answers belong to those."""
        before = self.run.json(CONFIG)["data"]["digest"]
        if before != self.digest:
            got = f"a probe with digest {self.digest[:12]} in run {self.run.run_id[:12]}"
            raise Refusal(got, f"the probe that it began with, digest {before[:12]}", "pass that probe, or start a run")

    def check_space(self, steps: Collection[int]) -> None:
        """Raise `Refusal` if checkpoints of these steps do not fit on the disk."""
        new = [step for step in steps if path_of(step, "step") not in self.stored]
        size = sum(tensor.nbytes for tensor in learned_state(self.model).values())
        if folder := self.run.local_folder():
            check_space(folder, total=len(new) * size, largest=size)

    def begin(self) -> None:
        """Write what the run says of itself; config.json comes last, so that where it exists the other files do too."""
        tags = {"nfa.entrypoint": MAKER, "nfa.version": __version__, "nfa.workload": WATCHED}
        for name, value in tags.items():
            if name not in self.tags:
                self.run.tag(name, value)
        if self.begun:
            return
        if self.examples:
            self.run.put_tensors(PROBE_EXAMPLES, *self.examples)
        self.output.json(IDS, {split: [] for split in SPLITS})
        self.output.json(CONFIG, self._config())

    def _config(self) -> dict[str, object]:
        return {
            "entrypoint": MAKER,
            "nfa_version": __version__,
            "workload": WATCHED,
            "train": {"workload": WATCHED, "workload_args": "", "seed": 0},
            "data": {"name": "probe of a watch", "digest": self.digest},
            "environment": {},
        }

    def keep(self, step: int) -> None:
        """Store the checkpoint of a step, completely or not at all; an existing one stays as it is."""
        path = path_of(step, "step")
        if path not in self.stored:
            metadata = {"step": str(step), "nfa_version": __version__}
            if found := self._answers():
                metadata[ANSWERS] = json.dumps(found)
            self.frozen &= frozen_names(self.model)
            self.run.put_tensors(path, learned_state(self.model, self.frozen), metadata)
            self.stored.add(path)
        if not self.trained:
            self.run.tag("nfa.trained", "true")
            self.trained = True

    def _answers(self) -> list[float]:
        """Return the model's answers; none where the examples are not stored and nobody could ask again."""
        if not self.examples:
            return []
        with without_autocast(self.model):
            return answers(self.workload, self.model)


def _run_of(output: Output) -> MlflowRun:
    if output.run is None:
        got = f"checkpoints=True with sink={type(output.sink).__name__}"
        remedy = "leave sink out, inside `with mlflow.start_run():`; or leave checkpoints out"
        raise Refusal(got, "the active MLflow run, which analyses read", remedy)
    if output.prefix:
        got, allowed = f"checkpoints=True with prefix={output.prefix!r}", "checkpoints of one model per run"
        raise Refusal(got, allowed, "leave prefix out, and start a separate run for every model with checkpoints")
    return output.run
