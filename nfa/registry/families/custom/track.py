"""`nfa.track`: tracks a training loop written by the user in the same way as `train` tracks its own."""

import inspect
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from nfa.console import bar, stage
from nfa.errors import Refusal
from nfa.observe.answers import answers
from nfa.parallel import World
from nfa.plain_text import counted
from nfa.registry import stored_runs, tracking
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end
from nfa.registry.families.custom.config import CustomConfig
from nfa.registry.families.custom.kept import Learned, Stateful, check_stateful, state_of
from nfa.registry.families.custom.maker import Maker, find, written
from nfa.registry.families.custom.making import code_of, data_digest, made, splits_of
from nfa.registry.families.custom.training import check_code
from nfa.registry.families.protocol import Ids
from nfa.registry.families.stored import config_digest
from nfa.registry.folders import typed_folder
from nfa.registry.run_names import own_loop_name
from nfa.registry.signals import Interrupted, SigtermListener, shielded
from nfa.registry.training.config_json import data_inputs, training_config, write_config
from nfa.seeding import generator_states, set_generator_states
from nfa.sinks.values import check_name, count_of

ENTRYPOINT = "track"


class Track:
    """Track your own training loop in the active MLflow run, so that every analysis accepts its run id.

        with mlflow.start_run(), nfa.track("my_lab:digits_cnn", width=32) as run:
            model = run.model
            optimizer = torch.optim.Adam(model.parameters())
            run.keep(optimizer=optimizer)
            for epoch in run.epochs(10):
                train_one_epoch(model, optimizer)
                run.log({"val/loss": validation_loss(model)}, epoch)
                run.checkpoint(epoch)

    A checkpoint is stored completely or not at all. It holds the weights, the model's outputs on a few examples, and
    the state of the model, of everything given to `keep`, and of the random generators. If the run is started again
    with `mlflow.start_run(run_id=…)`, `epochs` continues after the last checkpoint with that state, and values that
    were logged before are not overwritten. The end of the block is the end of the run: finished, failed, or killed by
    Ctrl-C or SIGTERM. With several processes (torch.distributed), the first one tracks and the others start from its
    state.

    Args:
        workload: The function that makes the workload, or its name: "module:function", or a registered name.
        seed: Seed of the initial weights of `run.model`, and the function's argument `seed` if it has one.
        device: A torch device; "auto" = CUDA if available, else the CPU.
        **arguments: Arguments of the function.

    Raises:
        Refusal: There is no active run, it tracks something else, or the workload cannot be made.
    """

    def __init__(
        self,
        workload: str | Callable[..., Any],
        /,
        *,
        seed: int = 1717,
        device: str = "auto",
        **arguments: int | float | str | bool,
    ) -> None:
        maker, function = _maker(workload)
        values = maker.read(written(arguments))
        self.config = CustomConfig(workload=maker.name, workload_args=written(values), seed=seed)
        self.workload = made(maker, values, seed=seed, device=device, function=function)
        self._learned = Learned(self.workload.model())
        joined = dist.is_available() and dist.is_initialized()
        self._world = World(dist.get_rank(), dist.get_world_size()) if joined else World()
        self._maker = maker
        self._kept: dict[str, Stateful] = {"model": self._learned}
        self._open = False  # True inside the block
        self._sigterm = SigtermListener()  # SIGTERM would end the program before the state of the run is stored
        self._done: int | None = None  # finished epochs; None = `epochs` has not started

    @property
    def model(self) -> nn.Module:
        """The model to train, a new model of the workload; checkpoints store this model."""
        return self._learned.model

    def __enter__(self) -> "Track":
        self._state: dict[str, Any] | None = None
        if not self._world.rank:
            self._run = tracking.join_active(ENTRYPOINT, self.config.workload, own_loop_name(self.config))
            ids = splits_of(self.workload)
            config = self._described(ids)
            begun = self._run.continued and stored_runs.has_begun(self._run.run_id)
            if begun:
                self._check_same(config)  # before anything is changed
            self._run.__enter__()
            stage("run", self._run.run_id)
            try:
                self._begin(config, ids, begun=begun)
            except BaseException:
                self.__exit__(*sys.exc_info())
                raise
        self._state = self._world.broadcast(self._state)
        self._open = True
        return self

    def _described(self, ids: Ids) -> dict[str, Any]:
        data = {"name": self.config.workload, "digest": data_digest(self.workload, ids)}
        known = {"workload": self.config.workload, "workload_args": self.config.workload_args, "seed": self.config.seed}
        return training_config(ENTRYPOINT, self.config.workload, CustomConfig, known, data)

    def _begin(self, config: Mapping[str, Any], ids: Ids, *, begun: bool) -> None:
        self._digest = config_digest(config)
        self._sigterm.start()
        if begun:
            self._state = tracking.load_state(self._run)
        else:
            self._run.log_params({**self.config.arguments(), **config["train"]})
            self._run.log_datasets(data_inputs(config, ids))
            write_config(self._run, {**config, "code": code_of(self._maker)})
            tracking.put_json(self._run.info, "example_ids.json", ids)

    def _check_same(self, config: Mapping[str, Any]) -> None:
        """Raise `Refusal` if the run was started with other arguments, other data, or code with different outputs."""
        stored_runs.check_whole(self._run.run_id)
        stored = tracking.config(self._run.run_id)
        for part in ("train", "data"):
            other = {key: value for key, value in config[part].items() if stored[part].get(key) != value}
            if other:
                got = f"run {self._run.run_id[:12]} with {', '.join(f'{key}={value}' for key, value in other.items())}"
                was = ", ".join(f"{key}={stored[part].get(key)}" for key in other)
                raise Refusal(got, f"what it was started with: {was}", "continue with that, or start a new run")
        check_code(self.workload, self._run.run_id)

    def keep(self, **kept: Any) -> None:
        """Store the state of optimizers, schedules and other objects in every checkpoint, and restore it on resume.

        Args:
            **kept: Objects with state_dict and load_state_dict, by the names under which they are stored.

        Raises:
            Refusal: An object has no state_dict, or one that holds more than tensors, numbers, strings and containers
                of them; a name is used twice; or the loop over `epochs` has started.
        """
        if self._done is not None:
            raise Refusal("keep(…) inside the loop over epochs", "keep(…) before it", "call it before run.epochs(…)")
        for name, one in kept.items():
            if name in self._kept:
                got = f"keep({name}=…), a name that is already used"
                raise Refusal(got, "a separate name for each object, other than model", f"run.keep({name}_2=…)")
            check_stateful(name, one)
        self._kept.update(kept)

    def epochs(self, last: int) -> Iterator[int]:
        """Yield the epochs from 1 to `last` that are not done yet; a resumed run first restores its last checkpoint.

        The initial weights are stored as the checkpoint of epoch 0.

        Raises:
            Refusal: It is called outside of the block, or with other kept objects than the stored run.
        """
        self._check_open("epochs")
        last = count_of("epochs", last)
        if self._done is None:
            self._done = 0 if self._state is None else self._restored()
            if self._state is None:
                self.checkpoint(0)
        for epoch in bar(range(self._done + 1, last + 1), self.config.workload, unit="epoch"):
            yield epoch
            self._done = epoch

    def _restored(self) -> int:
        assert self._state is not None
        state = self._state
        if missing := sorted({*state["kept"]} ^ {*self._kept}):
            got, allowed = f"keep({', '.join(self._kept)})", f"what the run has kept: {', '.join(state['kept'])}"
            raise Refusal(got, allowed, f"keep {missing[0]} as before, or start a new run")
        for name, one in self._kept.items():
            one.load_state_dict(state["kept"][name])
        if not self._world.rank:
            self._run.metrics.take_up(state["metrics"])
            stored_runs.load_weights(self.model, self._run.run_id, state["epoch"], self.workload)
            stage("resume", f"at epoch {state['epoch']}")
        set_generator_states(state["generators"])
        return int(state["epoch"])

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Log metrics of an epoch; a metric that was already logged for this epoch is not overwritten.

        Args:
            values: Numbers by metric key, such as "val/loss".
            epoch: Number of the epoch.

        Raises:
            Refusal: A value is not a single number, or a key cannot be used.
            ValueError: A value is not finite.
        """
        self._check_open("log")
        epoch = count_of("epoch", epoch)
        found = {name: _number(name, value) for name, value in values.items()}
        if not self._world.rank:
            self._run.metrics.log(found, epoch)

    def checkpoint(self, epoch: int) -> None:
        """Store the model and the state of everything kept, at the end of an epoch.

        Args:
            epoch: Number of the epoch.

        Raises:
            Refusal: The model's tensors have changed in name, shape or type, or a kept state cannot be stored.
        """
        self._check_open("checkpoint")
        epoch = count_of("epoch", epoch)
        if self._world.rank:
            return
        self._learned.check()
        with shielded():
            kept = {name: state_of(name, one) for name, one in self._kept.items()}  # may raise
            said = answers(self.workload, self.model)
            tracking.save_checkpoint(
                self._run,
                self.model,
                epoch=epoch,
                step=None,
                config_digest=self._digest,
                answers=said,
                frozen=self._learned.frozen,
            )
            self._run.metrics.checkpoint(self._run.info)
            generators, waiting = generator_states(), self._run.metrics.waiting()
            state = {"epoch": epoch, "kept": kept, "generators": generators, "metrics": waiting}
            tracking.save_state(self._run, state)
            self._run.tag({"nfa.trained": "true"})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if self._world.rank:
            return
        self._sigterm.stop()
        if isinstance(error, SystemExit) and not error.code:
            error = None  # a regular exit of the program
        signum = self._sigterm.received or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)
        if error is None:
            self._tag_best()
            what = f"{self.config.workload} in a training loop of the user's own, {counted(self._done or 0, 'epoch')}"
            describe_end(self._run, what, after=(after := command("analyze", run_id=self._run.run_id)))
        self._run.__exit__(kind, Interrupted(signum) if signum else error, trace)
        if error is None:
            stage("next", after)
            stage("done", self._run.link)

    def _check_open(self, call: str) -> None:
        """Raise `Refusal` outside of the block, where nothing would be stored."""
        if not self._open:
            got, allowed = f"{call}(…) outside of the block", "calls inside `with nfa.track(…) as run:`"
            raise Refusal(got, allowed, "move it inside; to continue a run that has ended: mlflow.start_run(run_id=…)")

    def _tag_best(self) -> None:
        """Tag the checkpoint with the lowest val/loss, if that was logged."""
        self._run.metrics.flush()
        losses = tracking.history(self._run.run_id, ["val/loss"]).get("val/loss", {})
        kept = [epoch for epoch in tracking.epochs(self._run.run_id) if epoch in losses]
        if kept:
            self._run.tag({"nfa.best_epoch": str(min(kept, key=lambda epoch: losses[epoch]))})


def _number(name: str, value: Any) -> float:
    """Return a metric as a float; raise `Refusal` if it is not a single number."""
    check_name(name)
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor with several elements
        got, remedy = f"{name}={value!r:.60}", "log its mean, or its parts under separate keys"
        raise Refusal(got, "a single number", remedy) from None


def _maker(workload: str | Callable[..., Any]) -> tuple[Maker, Callable[..., Any] | None]:
    """Find the function by its name; a function that is passed itself is named by its file."""
    if isinstance(workload, str):
        return find(workload), None
    if not inspect.isfunction(workload) or workload.__qualname__ != workload.__name__:
        got = f"nfa.track({workload!r})"
        raise Refusal(got, "a function at the top level of a file, or its name", "nfa.track('my_lab:make')")
    file = Path(inspect.getfile(workload)).resolve()
    here = file.parent == typed_folder(".").resolve()
    return find(f"{file.stem if here else file}:{workload.__name__}"), workload
