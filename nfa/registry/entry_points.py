"""One frozen dataclass per entry point: what the command line parses, MLflow logs and a checkpoint is rebuilt from.

The field is the documentation: its type, default and help text appear unchanged in `--help`, MLproject and docs/.
"""

from nfa.registry.analyses.config import AnalyzeConfig, GradientDirectionsConfig, GradientFlowConfig
from nfa.registry.families.eeg.config import AblateEEGConfig, TrainEEGConfig
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.language.config import CompareLoraConfig, TrainLoraConfig
from nfa.registry.families.language.experiment.config import LoraExperimentConfig
from nfa.registry.families.language.teacher.config import LoraSvdConfig, SynthesizeTeacherConfig
from nfa.registry.families.mlp.config import DemoConfig, ImportConfig, TrainConfig
from nfa.registry.sweeps.config import TuneConfig

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
