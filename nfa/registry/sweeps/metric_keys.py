"""Keys of the metrics that a training logs, known before it starts."""

from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.mlp.config import TrainConfig
from nfa.relations import TRAINING

LANGUAGE = (
    "eval/loss", "train/step_loss", "train/grad_norm", "train/learning_rate", "compute/flops", "flow/grad_norm",
    "flow/block_*/update_ratio",
)  # fmt: skip
SCORES = ("loss", "loss_mse", "loss_pearson", "pearson")


def logged_by(config: TrainConfig | TrainEEGConfig | TrainLoraConfig) -> list[str]:
    """Keys in the run of a training; with * in place of numbers that only the base model knows."""
    if isinstance(config, TrainConfig):
        return _classifier(config)
    return _decoder(config.resolved()) if isinstance(config, TrainEEGConfig) else list(LANGUAGE)


def _classifier(config: TrainConfig) -> list[str]:
    scores = [f"{split}/{score}" for split in ("train", "val", "test") for score in ("loss", "accuracy")]
    similarities = [f"layer_{index}/{relation}" for index in range(config.depth) for relation in TRAINING]
    moved = [f"flow/layer_{index}/update_ratio" for index in range(config.depth + 1)]
    harmonised = [f"ghm/{kind}_bin_{index}" for kind in ("share", "weight") for index in range(config.ghm_bins)]
    ghm = ["ghm/loss", *harmonised] if config.weighting == "ghm" else []
    return [*scores, *similarities, "flow/grad_norm", *moved, *ghm]


def _decoder(config: TrainEEGConfig) -> list[str]:
    scores = [f"{split}/{score}" for split in ("train", "val", "test") for score in SCORES]
    windows = [f"{split}/undefined_windows" for split in ("val", "test")]
    baselines = [f"{split}/baseline_pearson" for split in ("val", "test")]
    optional = {"se": config.use_se, "subject": config.use_subjects, "gate": config.use_gated_residual}
    blocks = [f"block_{index}" for index in range(int(config.n_layers))]
    groups = ["cnn", *[name for name, there in optional.items() if there], *blocks, "head"]
    return [*scores, *windows, *baselines, "flow/grad_norm", *[f"flow/{group}/update_ratio" for group in groups]]
