"""Processes on this machine that do tasks side by side."""

import contextlib
import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

from nfa.console import stage
from nfa.errors import NfaError
from nfa.masking import mask_process
from nfa.registry import signals
from nfa.registry.signals import Interrupted, shielded

POLL = 0.5  # seconds between two calls of `watch`
TRIES = 6  # processes that a task may have, the first and those that replace a killed one
Task = TypeVar("Task")
Outcome = tuple[int, str] | None  # exit code and message of an error; None if a task is done


def employ(
    do: Callable[[Task], None],
    tasks: Sequence[Task],
    number: int,
    *,
    watch: Callable[[], None] = lambda: None,
    ended: Callable[[int, NfaError | None], None] = lambda _place, _error: None,
) -> list[NfaError | None]:
    """Do every task in one of `number` processes; return the errors in the order of the tasks, None for those done.

    Signals are passed on, and the processes are waited for. If a process is killed, its task is given to another one.

    Args:
        do: Does a task; each process has a copy of it. It is picklable, and so are the tasks.
        tasks: What is to be done, in the order in which it is begun.
        number: The number of processes at a time.
        watch: Called regularly.
        ended: Called with a task's place among the tasks when it has ended, and with its error.
    """
    crew = _Crew(do, tasks, number, ended)
    with _threads_for(number):
        try:
            while crew.waiting or crew.busy:
                crew.start()
                crew.listen()
                watch()
        except BaseException:
            crew.end()
            raise
    return [crew.errors[place] for place in range(len(tasks))]


@dataclass
class _Worker:
    """A process, our end of the line to it, and the place of its task among the tasks."""

    process: Any
    line: Any
    place: int


class _Crew(Generic[Task]):
    """The processes, the places of the tasks that wait for one, and what became of the others."""

    def __init__(
        self,
        do: Callable[[Task], None],
        tasks: Sequence[Task],
        number: int,
        ended: Callable[[int, NfaError | None], None],
    ) -> None:
        self._do, self._tasks, self._number, self._ended = do, tasks, number, ended
        self._context = multiprocessing.get_context("spawn")
        self._tries: Counter[int] = Counter()
        self.waiting = deque(range(len(tasks)))
        self.busy: list[_Worker] = []
        self.errors: dict[int, NfaError | None] = {}

    def start(self) -> None:
        """Start processes for the waiting tasks, as many as there may be."""
        while self.waiting and len(self.busy) < self._number:
            with shielded():
                ours, theirs = self._context.Pipe()
                index = sum(self._tries.values())
                process = self._context.Process(target=_serve, args=(self._do, theirs, index))
                process.start()
                theirs.close()
                worker = _Worker(process, ours, -1)
                self.busy.append(worker)
                self._give(worker)

    def _give(self, worker: _Worker) -> None:
        """Give a process the next task, or dismiss it."""
        if not self.waiting:
            self.busy.remove(worker)
            self._send(worker, None)
            worker.process.join()
            return
        worker.place = self.waiting.popleft()
        self._tries[worker.place] += 1
        self._send(worker, (self._tasks[worker.place],))

    @staticmethod
    def _send(worker: _Worker, words: tuple[Task] | None) -> None:
        with contextlib.suppress(OSError):  # it has just been killed, and is heard of by that
            worker.line.send(words)

    def listen(self) -> None:
        """Hear of tasks that have ended, and of processes that were killed."""
        heard = wait([worker.line for worker in self.busy], timeout=POLL)
        for worker in [one for one in self.busy if one.line in heard]:
            with shielded():
                self._hear(worker)

    def _hear(self, worker: _Worker) -> None:
        try:
            outcome: Outcome = worker.line.recv()
        except (EOFError, OSError):
            self._lose(worker)
        else:
            self._conclude(worker.place, outcome)
            self._give(worker)

    def _lose(self, worker: _Worker) -> None:
        """Let another process take up the task of one that was ended by a signal; other ends are errors."""
        worker.process.join()
        self.busy.remove(worker)
        code, place = worker.process.exitcode, worker.place
        how = f"by signal {-code if code < 0 else code - 128}" if code < 0 or code > 128 else f"with exit code {code}"
        again = how.startswith("by") and self._tries[place] < TRIES
        said = f"worker {worker.process.pid} was ended {how}"
        stage("notice", f"{said}; {'it is replaced' if again else 'the others continue'}")
        if again:
            self.waiting.appendleft(place)
        else:
            self._conclude(place, (NfaError.exit_code, said))

    def _conclude(self, place: int, outcome: Outcome) -> None:
        error = None
        if outcome:
            error = NfaError(outcome[1])
            error.exit_code = outcome[0]
        self.errors[place] = error
        self._ended(place, error)

    def end(self) -> None:
        """Pass a signal on to all processes, and wait for them."""
        with shielded():
            for worker in self.busy:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGTERM)
            for worker in self.busy:
                worker.process.join()


def _serve(do: Callable[[Any], None], line: Any, index: int) -> None:
    """The main function of a process: it does the tasks that it is given, on a GPU of its own if there are enough."""
    signals.listen()
    mask_process()
    _choose_gpu(index)
    try:
        while words := line.recv():
            line.send(_outcome(do, *words))
    except EOFError:
        return  # the process that leads has ended
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from None


def _choose_gpu(index: int) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(index % torch.cuda.device_count())


def _outcome(do: Callable[[Any], None], task: Any) -> Outcome:
    try:
        do(task)
    except NfaError as error:
        return error.exit_code, str(error)
    return None


@contextlib.contextmanager
def _threads_for(number: int) -> Iterator[None]:
    """Let processes that are started in the block share the CPU cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
