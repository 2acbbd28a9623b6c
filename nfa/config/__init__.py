"""One frozen dataclass per entry point: what the command line parses, MLflow logs and a checkpoint is rebuilt from.

The field is the documentation: its type, default and help text appear unchanged in `--help`, MLproject and docs/.
"""

from nfa.config.analyses import DIRECTION_EPOCHS, AnalyzeConfig, GradientDirectionsConfig, GradientFlowConfig
from nfa.config.classifier import (
    ACTIVATIONS,
    DATASETS,
    LEARNING_RATES,
    LOSSES,
    MOMENTA,
    OPTIMIZERS,
    DemoConfig,
    ImportConfig,
    TrainConfig,
)
from nfa.config.eeg import PRESETS, SWITCHES, AblateEEGConfig, EEGTraining, TrainEEGConfig
from nfa.config.eeg_preparation import PrepareEEGConfig
from nfa.config.lora import CompareLoraConfig, LoraTraining, TrainLoraConfig
from nfa.config.lora_experiment import LoraExperimentConfig
from nfa.config.lora_steps import LoraSvdConfig, SynthesizeTeacherConfig
from nfa.config.options import Auto, bounds, check_fields, option, suggest
from nfa.config.stored import CONFIGS, check_ids, check_stored, identity, made_again
from nfa.config.tune import TuneConfig

ENTRY_POINTS = {
    "train": TrainConfig,
    "analyze": AnalyzeConfig,
    "gradient_directions": GradientDirectionsConfig,
    "demo": DemoConfig,
    "import_checkpoints": ImportConfig,
    "train_eeg": TrainEEGConfig,
    "prepare_eeg": PrepareEEGConfig,
    "ablate_eeg": AblateEEGConfig,
    "gradient_flow": GradientFlowConfig,
    "train_lora": TrainLoraConfig,
    "compare_lora": CompareLoraConfig,
    "lora_experiment": LoraExperimentConfig,
    "synthesize_teacher": SynthesizeTeacherConfig,
    "lora_svd": LoraSvdConfig,
    "tune": TuneConfig,
}

__all__ = [
    "ACTIVATIONS",
    "CONFIGS",
    "DATASETS",
    "DIRECTION_EPOCHS",
    "ENTRY_POINTS",
    "LEARNING_RATES",
    "LOSSES",
    "MOMENTA",
    "OPTIMIZERS",
    "PRESETS",
    "SWITCHES",
    "AblateEEGConfig",
    "AnalyzeConfig",
    "Auto",
    "CompareLoraConfig",
    "DemoConfig",
    "EEGTraining",
    "GradientDirectionsConfig",
    "GradientFlowConfig",
    "ImportConfig",
    "LoraExperimentConfig",
    "LoraSvdConfig",
    "LoraTraining",
    "PrepareEEGConfig",
    "SynthesizeTeacherConfig",
    "TrainConfig",
    "TrainEEGConfig",
    "TrainLoraConfig",
    "TuneConfig",
    "bounds",
    "check_fields",
    "check_ids",
    "check_stored",
    "identity",
    "made_again",
    "option",
    "suggest",
]
