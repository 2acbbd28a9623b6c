"""Parameters of the whole experiment with low-rank updates."""

import dataclasses
from dataclasses import dataclass

from nfa.errors import Refusal
from nfa.options import Auto, option
from nfa.registry.families.language.config import LoraTraining, TrainLoraConfig
from nfa.registry.families.language.teacher.config import LoraSvdConfig, SynthesizeTeacherConfig
from nfa.registry.typed_values import seed_list

STEPS = ("base", "synthesize", "svd", "svd-lora", "compare")
NUMBERS = {str(number): step for number, step in enumerate(STEPS, start=1)}
MODES = ("simplified", "full")
STARTS = ("svd-residual", "svd-warm", "pissa", "olora", "gaussian", "orthogonal")
TINY_STEPS, TINY_QUESTIONS, EVALUATIONS = 12, 96, 4


@dataclass(frozen=True)
class LoraExperimentConfig(LoraTraining):
    """Does an adapter train better if it starts from the SVD of a weight update? The whole experiment in one run."""

    mode: str = option(
        "simplified", "teacher: synthesised from a trained random adapter, or a full fine-tuning", choices=MODES
    )
    steps: str = option(
        "all", "steps to run: all, ask (a menu), or some of 1 base, 2 synthesize, 3 svd, 4 svd-lora, 5 compare"
    )
    starts: str = option("svd-residual,svd-warm", f"starts to compare with random: some of {', '.join(STARTS)}")
    seeds: str = option("1,2,3", "seeds of each start, such as 1-3 or 1,2,7")
    train_steps: int | Auto = option(
        "auto", "optimizer steps of each training; auto = 12 for tiny (96 held out), else by epochs", at_least=1
    )
    equal_compute: bool = option(True, "also train random adapters longer, to the others' compute with their start")
    teacher_lr: float | Auto = option("auto", "learning rate of a full fine-tuning; auto = 2e-5; tiny 1e-3", above=0)
    target_rank: int = option(64, "rank of a synthesised teacher", at_least=1, below=2**16)
    decay: float = option(0.04, "decay of its added singular values: s_r × exp(−decay × j)", at_least=0, below=1000)
    noise_scale: float = option(0.1, "spectral norm of its noise, relative to s_r; 0 = none", at_least=0, below=1000)
    run_name: str = option("", "name of the run in MLflow; empty = named by what ran")

    def __post_init__(self) -> None:
        self.check()
        self.chosen_steps()
        self.trainings()
        if self.mode == "simplified":
            self.synthesis("latest", seed=0)

    def chosen_steps(self) -> list[str]:
        """Names of the steps to run, in order; of `ask` all."""
        known = [step for step in STEPS if self.mode == "simplified" or step != "synthesize"]
        if self.steps.strip() in ("all", "ask"):
            return known
        parts = [part.strip() for part in self.steps.split(",")]
        names = [NUMBERS.get(part, part) for part in parts]
        for part, name in zip(parts, names, strict=True):
            if name not in known:
                allowed = ", ".join(f"{STEPS.index(step) + 1} {step}" for step in known)
                raise Refusal(f"steps={self.steps!r} (at {part!r}) with mode={self.mode}", allowed, "steps=all")
        return [step for step in known if step in names]

    def seed_list(self) -> list[int]:
        """Return the seeds; raise `Refusal` if they are not valid."""
        return seed_list(self.seeds)

    def start_list(self) -> list[str]:
        """Return the starts other than random, without repetitions."""
        parts = list(dict.fromkeys(part.strip() for part in self.starts.split(",")))
        for part in parts:
            if part not in STARTS:
                raise Refusal(f"starts={self.starts!r} (at {part!r})", ", ".join(STARTS), "starts=svd-residual")
        return parts

    def trainings(self) -> list[TrainLoraConfig]:
        """Return one training per start, including the teacher's and random; ids of factors are placeholders."""
        starts = [*(["full"] if self.mode == "full" else []), "random", *self.start_list()]
        seed = self.seed_list()[0]
        return [self.training(one, seed=seed, factors="0" if one.startswith("svd") else "") for one in starts]

    def training(self, start: str, *, seed: int, factors: str = "", steps: int | None = None) -> TrainLoraConfig:
        """The training of a start ("random", "full", …) with a seed; few checkpoints and evaluations unless asked."""
        init, _, how = start.partition("-")
        common = {item.name: getattr(self, item.name) for item in dataclasses.fields(LoraTraining)}
        if init == "full":
            common["lr"] = self.teacher_lr
        if self.schedule == "auto":
            common["schedule"] = "0"
        automatic = TINY_STEPS if self.base_model == "tiny" else 0
        asked = automatic if self.train_steps == "auto" else self.train_steps
        if self.base_model == "tiny" and self.train_steps == "auto" and not self.eval_items:
            common["eval_items"] = TINY_QUESTIONS
        if self.eval_every == "auto" and asked:
            common["eval_every"] = max(1, asked // EVALUATIONS)
        common |= {"init": init, "start": how or "residual", "factors": factors, "seed": seed}
        return TrainLoraConfig(**common, steps=asked if steps is None else steps).resolved()

    def synthesis(self, run_id: str, *, seed: int) -> SynthesizeTeacherConfig:
        """The teacher made from a trained adapter."""
        asked = {name: getattr(self, name) for name in ("target_rank", "decay", "noise_scale")}
        return SynthesizeTeacherConfig(run_id=run_id, seed=seed, **asked)

    def svd(self, run_id: str, *, seed: int) -> LoraSvdConfig:
        """The factors of a teacher."""
        return LoraSvdConfig(run_id=run_id, rank=self.rank, alpha=self.alpha, seed=seed)
