"""A fine-tuning that is ready to start (questions, base model and start), and its memory."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from nfa.registry.families.language.answer_tokens import Encoded
from nfa.registry.families.language.base.models import BaseModel
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.factors import StartFactors
from nfa.registry.families.language.questions import QuestionData
from nfa.registry.families.language.workload import DTYPES, LanguageModel
from nfa.registry.families.protocol import Ready
from nfa.registry.training.config_json import training_config

INITIAL = "initial_adapter.safetensors"
LOGIT_COPIES = 4  # in float32: the logits, their softmax, its gradient, and what is cast
KEPT_WIDTHS = 24  # activations of a block that a backward pass needs, in widths of the model


@dataclass(frozen=True)
class Asked:
    """Questions, as text and as tokens, and the base model that is asked them."""

    questions: QuestionData
    base: BaseModel
    encoded: Encoded

    @property
    def facts(self) -> dict[str, Any]:
        """The description of the questions in config.json."""
        return {
            "name": self.questions.name,
            "digest": self.questions.digest(),
            "items": len(self.questions.pairs),
            "too_long": len(self.encoded.too_long),
            "empty": len(self.questions.empty),
            "leaked": self.questions.leaked,
        }


@dataclass(frozen=True)
class ReadyToTune(Ready):
    """A ready fine-tuning, with the factors that the adapter starts from if they come from another run."""

    factors: StartFactors | None


def stored_config(config: TrainLoraConfig, asked: Asked) -> dict[str, Any]:
    """Content of the `config.json` of a fine-tuning, before there is a model."""
    train = {**dataclasses.asdict(config), "resume": ""}
    base = {"name": asked.base.name, "digest": asked.base.digest, "parameters": asked.base.parameters}
    return {**training_config("train_lora", "lora", TrainLoraConfig, train, asked.facts), "base": base}


def memory_of(workload: LanguageModel) -> float:
    """Return the approximate bytes of a training: base, trained weights, and activations of the longest batch."""
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(workload.base.folder).get_text_config()
    config = workload.config
    longest = max(len(workload.questions.ids[item]) for split in ("train", "val") for item in workload.ids(split))
    tokens = longest * min(config.batch_size, len(workload.ids("train")))
    weights = workload.base.parameters * DTYPES[config.base_precision].itemsize
    activations = KEPT_WIDTHS * shape.hidden_size * shape.num_hidden_layers + LOGIT_COPIES * shape.vocab_size
    return float(weights + 4 * tokens * activations)
