"""Series, texts and figures as TensorBoard shows them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nfa.extras import check_extra
from nfa.sinks.sink import OTHERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TensorBoard:
    """Event files in a folder: `tensorboard --logdir FOLDER`."""

    def __init__(self, folder: str | Path) -> None:
        check_extra("the sink TensorBoard", "tensorboard", otherwise=OTHERS)
        from torch.utils.tensorboard import SummaryWriter

        self.folder = Path(folder)
        self._writer = SummaryWriter(str(folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def text(self, name: str, content: str) -> None:
        self._writer.add_text(name, f"```\n{content}\n```")  # as it is, not as Markdown
        self._writer.flush()

    def figure(self, name: str, figure: "Figure") -> None:
        self._writer.add_figure(name, figure, close=False)
        self._writer.flush()
