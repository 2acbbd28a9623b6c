"""Several processes that share one pass over the data and add up what each has measured."""

import os
from typing import TYPE_CHECKING, Any, TypeVar

from nfa.errors import Refusal

if TYPE_CHECKING:
    from torch import Tensor

LAUNCHERS = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # variables that a launcher sets beside WORLD_SIZE
Items = TypeVar("Items", list[int], "Tensor")


class World:
    """The processes and this one's place among them; with one process every operation is the identity."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @staticmethod
    def launched() -> bool:
        """Tell whether a launcher has started this process."""
        return "WORLD_SIZE" in os.environ

    @classmethod
    def joined(cls) -> "World":
        """Join the processes that a launcher such as torchrun has started together; without one, this process is alone.

        Each process uses a GPU of its own, as far as there are enough.
        """
        world = cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
        if world.size == 1:
            return world
        import torch
        import torch.distributed as dist

        if not dist.is_initialized():
            if missing := [name for name in LAUNCHERS if name not in os.environ]:
                got = f"WORLD_SIZE={world.size} in the environment without {', '.join(missing)}"
                raise Refusal(got, "processes that a launcher such as torchrun has started", "start with nproc=N")
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
            # Imported later (by torch.optim, say), it would keep the group in the defaults of its functions. Threads of
            # a group that is never freed can end the process with SIGABRT while Python shuts down.
            import torch.distributed.nn.functional

            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return world

    def broadcast(self, item: Any) -> Any:
        """Return the first process's item in all processes; None in the others if the first one has ended."""
        if self.size == 1:
            return item
        import torch.distributed as dist

        items = [item]
        try:
            dist.broadcast_object_list(items, src=0)
        except RuntimeError:  # the connection is closed
            if not self.rank:
                raise
            return None
        return items[0]

    def bounds(self, items: int) -> tuple[int, int]:
        """Return where this process's contiguous part of so many items starts and stops."""
        return items * self.rank // self.size, items * (self.rank + 1) // self.size

    def shard(self, items: Items) -> Items:
        """Return this process's contiguous part of a list or of a tensor's rows."""
        start, stop = self.bounds(len(items))
        return items[start:stop]

    def sum(self, tensor: "Tensor") -> "Tensor":
        """Return the sum over processes, in all of them."""
        if self.size > 1:
            import torch.distributed as dist

            tensor = tensor.contiguous().clone()
            dist.all_reduce(tensor)
        return tensor

    def count(self, number: int) -> int:
        """Return the sum of whole numbers over processes."""
        import torch

        return int(self.sum(torch.tensor(number, dtype=torch.int64)))

    def broadcast_tensor(self, tensor: "Tensor") -> "Tensor":
        """Return the first process's tensor in all processes."""
        if self.size > 1:
            import torch.distributed as dist

            tensor = tensor.contiguous().clone()
            dist.broadcast(tensor, src=0)
        return tensor

    def gather(self, item: Any) -> list[Any]:
        """Return the items of all processes, in order."""
        if self.size == 1:
            return [item]
        import torch.distributed as dist

        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item)
        return items

    def close(self) -> None:
        """Leave the group of processes."""
        if self.size == 1:
            return
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
