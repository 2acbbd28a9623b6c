"""What the model `tiny` is and how it is trained, without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TinySettings:
    """The model (layers, sizes, deviation of initial weights) and its training by AdamW."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    intermediate: int = 192
    deviation: float = 0.06
    rope_theta: float = 500.0
    steps: int = 250
    batch: int = 4
    length: int = 128
    lr: float = 0.007
    warm_up: int = 20
    weight_decay: float = 0.1
    seed: int = 0

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Its linear layers by path, [o, i]; the one that gives the logits is tied to the embedding."""
        wide, narrow = self.hidden, self.hidden // self.heads * self.key_value_heads
        of_block = {
            "self_attn.q_proj": (wide, wide),
            "self_attn.k_proj": (narrow, wide),
            "self_attn.v_proj": (narrow, wide),
            "self_attn.o_proj": (wide, wide),
            "mlp.gate_proj": (self.intermediate, wide),
            "mlp.up_proj": (self.intermediate, wide),
            "mlp.down_proj": (wide, self.intermediate),
        }
        return {f"model.layers.{j}.{name}": shape for j in range(self.layers) for name, shape in of_block.items()}
