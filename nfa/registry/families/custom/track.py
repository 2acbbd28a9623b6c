"""`nfa.track`: a training in a loop of one's own, tracked as `train` tracks its own."""

import inspect
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from nfa.console import bar, stage
from nfa.errors import Refusal
from nfa.observe.answers import answers
from nfa.parallel import World
from nfa.registry import stored_runs, tracking
from nfa.registry.families.custom.config import CustomConfig
from nfa.registry.families.custom.kept import Learned, Stateful, check_stateful, state_of
from nfa.registry.families.custom.maker import Maker, find, written
from nfa.registry.families.custom.making import code_of, data_digest, made, splits_of
from nfa.registry.families.custom.training import check_code
from nfa.registry.families.protocol import Ids
from nfa.registry.families.stored import config_digest
from nfa.registry.folders import typed_folder
from nfa.registry.signals import Interrupted, shielded
from nfa.registry.training.config_json import data_inputs, training_config, write_config
from nfa.seeding import generator_states, set_generator_states
from nfa.sinks.values import check_name, count_of

ENTRYPOINT = "track"


class Track:
    """A training in the active MLflow run, in a loop of one's own; analyses take its run id as any other.

        with mlflow.start_run(), nfa.track("my_lab:digits_cnn", width=32) as run:
            model = run.model
            optimizer = torch.optim.Adam(model.parameters())
            run.keep(optimizer=optimizer)
            for epoch in run.epochs(10):
                train_one_epoch(model, optimizer)
                run.log({"val/loss": validation_loss(model)}, epoch)
                run.checkpoint(epoch)

    `workload` names the function that makes it, as `train` takes it, or is that function; `arguments` are its own.
    `seed` decides the weights of `run.model`, which is a new model of `run.workload`, and is also the function's
    argument of that name, if it has one.

    A checkpoint is stored whole or not at all: the weights, what the model answers on a few examples, and the state of
    the model, of all that `keep` was given and of the generators. In a run that is started again,
    `mlflow.start_run(run_id=…)`, `epochs` goes on after the last checkpoint, with everything as it was then. Metrics of
    an epoch that `log` has logged before are left as they are. How the block ends is how the run ends: finished,
    failed, or killed by Ctrl-C or SIGTERM. Of several processes (torch.distributed) the first tracks, and the others
    start from its state.

    Raises `Refusal` without an active run, for one that something else was tracked in, and for a workload that cannot
    be made.
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
        self._open = False  # inside the block
        self._signum: int | None = None
        self._done: int | None = None  # epochs; None = `epochs` has not begun

    @property
    def model(self) -> nn.Module:
        """What is trained; checkpoints are of it and of no other."""
        return self._learned.model

    def __enter__(self) -> "Track":
        self._state: dict[str, Any] | None = None
        if not self._world.rank:
            self._run = tracking.join_active(ENTRYPOINT, self.config.workload)
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
        self._listen()
        if begun:
            self._state = tracking.load_state(self._run)
        else:
            self._run.log_params({**self.config.arguments(), **config["train"]})
            self._run.log_datasets(data_inputs(config, ids))
            write_config(self._run, {**config, "code": code_of(self._maker)})
            tracking.put_json(self._run.info, "example_ids.json", ids)

    def _check_same(self, config: Mapping[str, Any]) -> None:
        """`Refusal` where the run was begun with other arguments, other data, or code that answers otherwise."""
        stored_runs.check_whole(self._run.run_id)
        stored = tracking.config(self._run.run_id)
        for part in ("train", "data"):
            other = {key: value for key, value in config[part].items() if stored[part].get(key) != value}
            if other:
                got = f"run {self._run.run_id[:12]} with {', '.join(f'{key}={value}' for key, value in other.items())}"
                was = ", ".join(f"{key}={stored[part].get(key)}" for key in other)
                raise Refusal(got, f"what it was begun with: {was}", "go on with those, or start a new run")
        check_code(self.workload, self._run.run_id)

    def keep(self, **kept: Any) -> None:
        """Let the state of optimizers, schedulers and others be part of every checkpoint, under these names.

        Raises `Refusal` for what has no state_dict, or one with more than tensors, numbers, texts and containers of
        them, and once `epochs` has begun.
        """
        if self._done is not None:
            raise Refusal("keep(…) inside the loop over epochs", "keep(…) before it", "call it before run.epochs(…)")
        for name, one in kept.items():
            if name in self._kept:
                got = f"keep({name}=…), which is kept already"
                raise Refusal(got, "each under a name of its own, not model", f"run.keep({name}_2=…)")
            check_stateful(name, one)
        self._kept.update(kept)

    def epochs(self, last: int) -> Iterator[int]:
        """The epochs from 1 to `last` that are not done yet; everything is as it was after the one before.

        The weights before the first one are stored as the checkpoint of epoch 0.
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
            raise Refusal(got, allowed, f"keep {missing[0]} in both, or start a new run")
        for name, one in self._kept.items():
            one.load_state_dict(state["kept"][name])
        if not self._world.rank:
            self._run.metrics.take_up(state["metrics"])
            stored_runs.load_weights(self.model, self._run.run_id, state["epoch"], self.workload)
            stage("resume", f"at epoch {state['epoch']}")
        set_generator_states(state["generators"])
        return int(state["epoch"])

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Metrics of an epoch, each once; ValueError for one that is not finite."""
        self._check_open("log")
        epoch = count_of("epoch", epoch)
        found = {name: _number(name, value) for name, value in values.items()}
        if not self._world.rank:
            self._run.metrics.log(found, epoch)

    def checkpoint(self, epoch: int) -> None:
        """Store the model and everything that is kept as it is at the end of an epoch."""
        self._check_open("checkpoint")
        epoch = count_of("epoch", epoch)
        if self._world.rank:
            return
        self._learned.check()
        with shielded():
            kept = {name: state_of(name, one) for name, one in self._kept.items()}  # refused before anything is stored
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
            self._run.metrics.flush()
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
        self._let_be()
        if isinstance(error, SystemExit) and not error.code:
            error = None  # the program says that all is well
        signum = self._signum or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)
        if error is None:
            self._tag_best()
        self._run.__exit__(kind, Interrupted(signum) if signum else error, trace)
        if error is None:
            stage("done", self._run.link)

    def _check_open(self, call: str) -> None:
        """`Refusal` outside of the block, where nothing would be kept."""
        if not self._open:
            got, allowed = f"{call}(…) outside of the block", "calls inside `with nfa.track(…) as run:`"
            raise Refusal(got, allowed, "indent it; mlflow.start_run(run_id=…) goes on with a run that has ended")

    def _tag_best(self) -> None:
        """The checkpoint with the smallest val/loss, where that was logged."""
        self._run.metrics.flush()
        losses = tracking.history(self._run.run_id).get("val/loss", {})
        kept = [epoch for epoch in tracking.epochs(self._run.run_id) if epoch in losses]
        if kept:
            self._run.tag({"nfa.best_epoch": str(min(kept, key=lambda epoch: losses[epoch]))})

    # ---- SIGTERM ends a program without a word, so that nothing could say how the run ended

    def _listen(self) -> None:
        with suppress(ValueError):  # another thread than the main one
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._end)

    def _let_be(self) -> None:
        with suppress(ValueError):
            if signal.getsignal(signal.SIGTERM) == self._end:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _end(self, signum: int, _frame: FrameType | None) -> None:
        self._signum = signum
        raise SystemExit(128 + signum)


def _number(name: str, value: Any) -> float:
    """Of a metric that can be logged; `Refusal` for another."""
    check_name(name)
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several
        got, remedy = f"{name}={value!r:.60}", "log its mean, or its parts by names of their own"
        raise Refusal(got, "one number", remedy) from None


def _maker(workload: str | Callable[..., Any]) -> tuple[Maker, Callable[..., Any] | None]:
    """The function by its name; one that is given is taken itself, and named by its file."""
    if isinstance(workload, str):
        return find(workload), None
    if not inspect.isfunction(workload) or workload.__qualname__ != workload.__name__:
        got = f"nfa.track({workload!r})"
        raise Refusal(got, "a function at the top of a file, or its name", "nfa.track('my_lab:make')")
    file = Path(inspect.getfile(workload)).resolve()
    here = file.parent == typed_folder(".").resolve()
    return find(f"{file.stem if here else file}:{workload.__name__}"), workload
