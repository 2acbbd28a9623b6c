"""A Conformer that decodes a speech envelope from EEG."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa.registry.families.eeg.config import FRONT_KERNELS
from nfa.registry.families.eeg.relative_attention import RelativeAttention
from nfa.registry.training.shared_batch import SharedBatchNorm, SharedDropout
from nfa.seeding import generator

SLOPE = 0.01
REDUCTION = 16  # factor by which squeeze-excitation reduces the channels
GATE_REDUCTION = 4
HEAD_REDUCTION = 2
POSITION_BASE = 10_000


@dataclass(frozen=True)
class ConformerOptions:
    """Sizes and switches of a `Conformer`; a switch that is off adds nothing to the network.

    `gradient_scale` multiplies the gradient at `gradient_scale_position`: at the stack's output before the gate (the
    residual path is not scaled), at the head's input, or at the stack's input. `output_grad_scale` multiplies only the
    gradients of the head's parameters.
    """

    channels: int = 64
    subjects: int = 71
    d_model: int = 256
    d_inner: int = 1024
    n_head: int = 4
    n_layers: int = 8
    conv_kernel_size: int = 31
    dropout: float = 0.3
    use_positions: bool = True
    use_se: bool = True
    use_subjects: bool = True
    use_residual: bool = True
    use_gated_residual: bool = True
    use_mlp_head: bool = True
    gradient_scale: float = 2.0
    gradient_scale_position: str = "before_gate"
    output_grad_scale: float = 1.0


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x unchanged (bitwise if finite, except 0 for −0), with its gradient multiplied by `factor`.

    Computed as x + (s − 1)·(x − x₀), where x₀ is a constant equal to x: the value is x + 0 and the derivative is s. It
    needs no custom autograd function, so torch.func can differentiate it.
    """
    return x if factor == 1 else x + (factor - 1) * (x - x.detach())


class Front(nn.Module):
    """Three convolutions over time, each with LayerNorm over channels, leaky ReLU and dropout: [n T C] → [n T d]."""

    def __init__(self, channels: int, d_model: int, dropout: float) -> None:
        super().__init__()
        widths = (channels, *[d_model] * (len(FRONT_KERNELS) - 1))
        self.convs = nn.ModuleList(
            nn.Conv1d(width, d_model, kernel, padding="same")
            for width, kernel in zip(widths, FRONT_KERNELS, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in FRONT_KERNELS)
        self.dropout = SharedDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x.transpose(1, 2)).transpose(1, 2))
            x = self.dropout(F.leaky_relu(x, SLOPE))
        return x


class SqueezeExcitation(nn.Module):
    """x · σ(W₂ leaky(W₁ mean_t x)): weights each channel by a summary of the window (arXiv 1709.01507)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(d_model, max(1, d_model // REDUCTION), bias=False)
        self.excite = nn.Linear(max(1, d_model // REDUCTION), d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.excite(F.leaky_relu(self.squeeze(x.mean(dim=1)), SLOPE))
        return x * weights.sigmoid()[:, None]


class FeedForward(nn.Module):
    """LayerNorm → d → d_inner → Swish → dropout → d → dropout."""

    def __init__(self, d_model: int, d_inner: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.expand, self.contract = nn.Linear(d_model, d_inner), nn.Linear(d_inner, d_model)
        self.dropout = SharedDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.contract(self.dropout(F.silu(self.expand(self.norm(x))))))
        return out


class ConvolutionModule(nn.Module):
    """LayerNorm → pointwise d → 4d → GLU → depthwise over time → BatchNorm → Swish → pointwise 2d → d → dropout."""

    def __init__(self, d_model: int, kernel: int, dropout: float) -> None:
        super().__init__()
        inner = 2 * d_model
        self.norm = nn.LayerNorm(d_model)
        self.expand = nn.Linear(d_model, 2 * inner)
        self.depthwise = nn.Conv1d(inner, inner, kernel, padding="same", groups=inner)
        self.batch_norm = SharedBatchNorm(inner)
        self.contract = nn.Linear(inner, d_model)
        self.dropout = SharedDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.glu(self.expand(self.norm(x)), dim=-1).transpose(1, 2)
        hidden = F.silu(self.batch_norm(self.depthwise(hidden))).transpose(1, 2)
        out: Tensor = self.dropout(self.contract(hidden))
        return out


class Block(nn.Module):
    """x += ½ FFN; x += attention; x += convolution; x += ½ FFN; LayerNorm (Gulati et al. 2020, arXiv 2005.08100)."""

    def __init__(self, options: ConformerOptions) -> None:
        super().__init__()
        d_model, dropout = options.d_model, options.dropout
        self.ffn_in = FeedForward(d_model, options.d_inner, dropout)
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = RelativeAttention(d_model, options.n_head)
        self.dropout = SharedDropout(dropout)
        self.convolution = ConvolutionModule(d_model, options.conv_kernel_size, dropout)
        self.ffn_out = FeedForward(d_model, options.d_inner, dropout)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ffn_in(x) / 2
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        x = x + self.convolution(x)
        out: Tensor = self.norm(x + self.ffn_out(x) / 2)
        return out


class Gate(nn.Module):
    """gate·y + (1 − gate)·c with gate = σ(W₂ relu(W₁ mean_t y)): mixes the stack's output y with its input c."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        hidden = max(1, d_model // GATE_REDUCTION)
        self.reduce, self.expand = nn.Linear(d_model, hidden), nn.Linear(hidden, d_model)

    def forward(self, y: Tensor, c: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(y.mean(dim=1)))).sigmoid()[:, None]
        mixed: Tensor = gate * y + (1 - gate) * c
        return mixed


class MLPHead(nn.Module):
    """LayerNorm → d → d/2 → GELU → dropout → 1."""

    def __init__(self, d_model: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.hidden, self.out = nn.Linear(d_model, d_model // HEAD_REDUCTION), nn.Linear(d_model // HEAD_REDUCTION, 1)
        self.dropout = SharedDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.dropout(F.gelu(self.hidden(self.norm(x)))))
        return out


def sinusoids(length: int, d_model: int, like: Tensor) -> Tensor:
    """[T, d]: sin and cos of t / 10000^(2i/d), interleaved (Vaswani et al. 2017, arXiv 1706.03762)."""
    time = torch.arange(length, device=like.device, dtype=torch.float64)[:, None]
    rate = POSITION_BASE ** (-torch.arange(0, d_model, 2, device=like.device, dtype=torch.float64) / d_model)
    waves = torch.stack([(time * rate).sin(), (time * rate).cos()], dim=-1)
    return waves.flatten(1)[:, :d_model].to(like.dtype)


class Conformer(nn.Module):
    """EEG [n, T, C] and subject indices [n], −1 for unknown ones → envelope [n, T, 1]; T up to 1,000 samples."""

    def __init__(self, options: ConformerOptions) -> None:
        super().__init__()
        d_model = options.d_model
        self.options = options
        self.cnn = Front(options.channels, d_model, options.dropout)
        self.se = SqueezeExcitation(d_model) if options.use_se else None
        self.subject = nn.Linear(options.subjects, d_model) if options.use_subjects else None
        self.layer_stack = nn.ModuleList(Block(options) for _ in range(options.n_layers))
        self.gate = Gate(d_model) if options.use_gated_residual else None
        self.head: nn.Module = MLPHead(d_model, options.dropout) if options.use_mlp_head else nn.Linear(d_model, 1)

    def forward(self, eeg: Tensor, subjects: Tensor) -> Tensor:
        scaled = self._scales()
        c = scaled["before_stack"](self.embed(eeg, subjects))
        y = c
        for block in self.layer_stack:
            y = block(y)
        y = scaled["before_gate"](y)
        if self.gate is not None:
            y = self.gate(y, c)
        elif self.options.use_residual:
            y = y + c
        # Gradients are scaled by 1/s before the head and by s after it, so only those of its parameters change.
        factor = self.options.output_grad_scale
        out: Tensor = self.head(scale_gradient(scaled["before_head"](y), 1 / factor))
        return scale_gradient(out, factor)

    def _scales(self) -> dict[str, Callable[[Tensor], Tensor]]:
        here, factor = self.options.gradient_scale_position, self.options.gradient_scale
        return {
            place: (lambda x: scale_gradient(x, factor)) if place == here else (lambda x: x)
            for place in ("before_stack", "before_gate", "before_head")
        }

    def embed(self, eeg: Tensor, subjects: Tensor) -> Tensor:
        """Return the input of the blocks [n, T, d]."""
        x: Tensor = self.cnn(eeg)
        if self.se is not None:
            x = self.se(x)
        if self.subject is not None:
            x = x + self.subject(self._one_hot(subjects, x.dtype))[:, None]
        if self.options.use_positions:
            x = x + sinusoids(x.shape[1], self.options.d_model, x)
        return x

    def _one_hot(self, subjects: Tensor, dtype: torch.dtype) -> Tensor:
        """Return one-hot rows [n, subjects]; unknown subjects (−1) get equal shares, the mean of all vectors."""
        count = self.options.subjects
        one_hot = F.one_hot(subjects.clamp(min=0), count).to(dtype)
        return torch.where(subjects[:, None] < 0, 1 / count, one_hot)


def initialise(model: Conformer, seed: int) -> None:
    """Draw PyTorch's default initial weights, with one random stream per module, so switches affect no other module."""
    for name, module in model.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator(seed, f"init/{name}").initial_seed())
                reset()
