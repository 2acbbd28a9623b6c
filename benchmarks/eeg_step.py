"""A training step of the Conformer, against the same network with nn.MultiheadAttention and no relative positions."""

import torch
import torch.nn as nn
from torch import Tensor

from benchmarks.record import in_turn, ratio, store
from nfa.registry.families.eeg.conformer import Block, Conformer, ConformerOptions
from nfa.registry.families.eeg.losses import loss_terms

EXAMPLES, LENGTH, CHANNELS, SUBJECTS = 8, 640, 64, 71
ROUNDS = 5


class PlainAttention(nn.Module):
    """PyTorch's attention, without relative positions."""

    def __init__(self, d_model: int, n_head: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(d_model, n_head, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """As of `RelativeAttention`."""
        z: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return z


def plain(options: ConformerOptions) -> Conformer:
    """The Conformer with that attention in every block."""
    model = Conformer(options)
    for block in model.layer_stack:
        assert isinstance(block, Block)
        block.attention = PlainAttention(options.d_model, options.n_head)  # type: ignore[assignment]
    return model


def main() -> None:
    """Time and record."""
    torch.manual_seed(0)
    options = ConformerOptions(channels=CHANNELS, subjects=SUBJECTS)
    eeg, envelope = torch.randn(EXAMPLES, LENGTH, CHANNELS), torch.randn(EXAMPLES, LENGTH, 1)
    subjects = torch.randint(SUBJECTS, (EXAMPLES,))

    def stepping(model: Conformer) -> "object":
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9)

        def step() -> None:
            error, apart = loss_terms(model(eeg, subjects), envelope)
            optimizer.zero_grad()
            (error + apart).mean().backward()
            optimizer.step()

        return step

    ways = {"this": stepping(Conformer(options)), "nn.MultiheadAttention": stepping(plain(options))}
    seconds = in_turn(ways, rounds=ROUNDS)  # type: ignore[arg-type]
    results = {f"{way}: s per step": round(sorted(of_way)[ROUNDS // 2], 2) for way, of_way in seconds.items()}
    results["this / nn.MultiheadAttention"] = round(ratio(seconds["this"], seconds["nn.MultiheadAttention"]), 2)
    parameters = sum(weight.numel() for weight in Conformer(options).parameters())
    notes = [
        f"v2 full, {parameters:,} parameters, {EXAMPLES} windows of {LENGTH} samples, {CHANNELS} channels, "
        "simulated; forward, backward, Adam. The network with nn.MultiheadAttention has no relative positions, so "
        "it does less work.",
    ]
    store("eeg_step", "A training step of the Conformer", results, notes)


if __name__ == "__main__":
    main()
