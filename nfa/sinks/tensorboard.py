"""A sink that writes event files for TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nfa.extras import check_extra
from nfa.sinks.sink import OTHERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TensorBoard:
    """Write event files to a folder; look at them with `tensorboard --logdir FOLDER`.

    Args:
        folder: The folder.

    Raises:
        Refusal: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        check_extra("the sink TensorBoard", "tensorboard", otherwise=OTHERS)
        from torch.utils.tensorboard import SummaryWriter

        self.folder = Path(folder)
        self._writer = SummaryWriter(str(folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write the values of a step."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def text(self, name: str, content: str) -> None:
        """Write a text."""
        self._writer.add_text(name, f"```\n{content}\n```")  # as plain text, not as Markdown
        self._writer.flush()

    def figure(self, name: str, figure: "Figure") -> None:
        """Write a figure."""
        self._writer.add_figure(name, figure, close=False)
        self._writer.flush()
