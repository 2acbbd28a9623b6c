"""Parameters of the steps between two fine-tunings: a synthesised teacher, and the SVD of an update."""

from dataclasses import dataclass

from nfa.errors import Refusal
from nfa.options import Auto, check_fields, option
from nfa.registry.families.language.config import TARGETS, check_targets, listed


@dataclass(frozen=True)
class SynthesizeTeacherConfig:
    """Synthesise a teacher of higher rank from a trained adapter: its singular triplets, a decaying tail, and noise."""

    run_id: str = option("latest", "run of train_lora with an adapter: id, prefix, or latest")
    checkpoint: int | Auto = option("auto", "optimizer step of the adapter's checkpoint; auto = the last", at_least=0)
    rank: int | Auto = option("auto", "singular triplets kept per module; auto = the adapter's rank", at_least=1)
    target_rank: int = option(64, "rank of the teacher: kept triplets and tail", at_least=1, below=2**16)
    decay: float = option(0.04, "decay of the tail's singular values: s_r × exp(−decay × j)", at_least=0, below=1000)
    noise_scale: float = option(0.1, "spectral norm of the noise, relative to s_r; 0 = none", at_least=0, below=1000)
    seed: int = option(1717, "seed of the added directions and the noise", at_least=0, below=2**63)
    output_dir: str = option("", "folder to copy all files to; empty = no copy")
    run_name: str = option("", "name of the run in MLflow; empty = named after its source")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.rank != "auto" and self.target_rank < self.rank:
            got, allowed = f"target_rank={self.target_rank} with rank={self.rank}", f"a number ≥ {self.rank}"
            raise Refusal(got, allowed, f"target_rank={max(64, self.rank)}, or a smaller rank")


@dataclass(frozen=True)
class LoraSvdConfig:
    """Turn the weight update of a model into the nearest LoRA factors, by an SVD of each module."""

    run_id: str = option("latest", "run of train_lora or synthesize_teacher: id, prefix, or latest")
    checkpoint: int | Auto = option("auto", "optimizer step of train_lora's checkpoint; auto = the last", at_least=0)
    teacher: str = option("", "a fine-tuned model instead of a run: a hub id, folder or GGUF file")
    base_model: str = option("", "base model of the teacher; for a run: where its base model is now, empty = unchanged")
    targets: str = option(TARGETS, "modules of a teacher, by ends of their paths, comma-separated; a run has its own")
    rank: int = option(16, "rank of the factors", at_least=1, below=2**16)
    alpha: float = option(16.0, "scale of the factors: the update is alpha / rank × B A", above=0)
    oversampling: int = option(
        16, "additional directions in the randomised SVD of a dense update", at_least=0, below=2**16
    )
    iterations: int = option(4, "power iterations of the randomised SVD", at_least=0, below=1000)
    seed: int = option(1717, "seed of the randomised SVD", at_least=0, below=2**63)
    output_dir: str = option("", "folder to copy all files to; empty = no copy")
    run_name: str = option("", "name of the run in MLflow; empty = named after its source")

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.teacher:
            return
        if self.run_id != "latest":
            got = f"run_id={self.run_id} with teacher={self.teacher}"
            raise Refusal(got, "either a run, or a teacher with its base_model", "leave one of them out")
        if not self.base_model:
            allowed = "a teacher together with its base model"
            raise Refusal(f"teacher={self.teacher} without base_model", allowed, "base_model=MODEL")
        check_targets(self.targets)

    @property
    def target_list(self) -> list[str]:
        """The targets, each once."""
        return listed(self.targets)

    def check_rank(self, most: int, module: str) -> None:
        """Raise `Refusal` for more directions than the update of a module, the one with the fewest, can have."""
        if self.rank > most:
            got = f"rank={self.rank} for {module}, whose update has at most rank {most}"
            raise Refusal(got, f"1 to {most}; further directions would be zero and would not train", f"rank={most}")
