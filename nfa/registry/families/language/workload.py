"""The workload of a causal language model that is fine-tuned on questions and answers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.maths.bfloat16 import mixed_precision
from nfa.parameter_groups import ParameterGroups
from nfa.registry.families.language import adapters
from nfa.registry.families.language.adapters import Adapter
from nfa.registry.families.language.answer_tokens import IGNORED, Encoded, answers_first, collate
from nfa.registry.families.language.base.models import BaseModel, load_model
from nfa.registry.families.language.config import ADAM, TrainLoraConfig
from nfa.registry.families.language.losses import TokenMean, answer_losses
from nfa.registry.training.optimizers import Group, Optimizers, build
from nfa.seeding import generator
from nfa.workload import Batch, Workload

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}
TOKENS_AT_ONCE = 2048  # in an analysis, because each token has a row of logits
ADAM_ARGUMENTS: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "fused": True}
ARGUMENTS = dict.fromkeys(ADAM, ADAM_ARGUMENTS)


class LanguageModel(Workload):
    """The workload of `train_lora`: rebuilt anywhere from `config`, the base model, the questions and the stored ids.

    An example is a question with its answer, its id the place in the data. Outputs are the logits [n t v] that predict
    the tokens of its answer, from the first one on; 0 after the last one. `initial` is the adapter at step 0; None = as
    `config.init` says.
    """

    name = "lora"

    def __init__(
        self,
        config: TrainLoraConfig,
        base: BaseModel,
        questions: Encoded,
        example_ids: Mapping[str, Sequence[int]],
        device: torch.device | str = "cpu",
        initial: Adapter | None = None,
    ) -> None:
        self.config, self.base, self.questions = config.resolved(), base, questions
        self.example_ids, self.device = example_ids, torch.device(device)
        self.initial = initial
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def variant(self, config: TrainLoraConfig) -> "LanguageModel":
        """Return a workload with the same questions and base model for another training with a new adapter."""
        return LanguageModel(config, self.base, self.questions, self.example_ids, self.device)

    @property
    def examples_at_once(self) -> int:
        longest = max(len(self.questions.ids[item]) for item in self.ids("train"))
        return max(1, TOKENS_AT_ONCE // longest)

    def ids(self, split: str) -> Sequence[int]:
        return self.example_ids[split]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.config.steps or self.config.epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per pass through the training questions; the last one may have fewer questions."""
        return math.ceil(len(self.ids("train")) / self.config.step_size)

    def order(self, step: int) -> Tensor:
        """Return ids of the training questions of an optimizer step, counted from 0, whatever is trained on them."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[place * self.config.step_size :][: self.config.step_size]

    def _shuffled(self, epoch: int) -> Tensor:
        ids = torch.as_tensor(self.ids("train"))
        return ids[torch.randperm(len(ids), generator=generator(self.config.seed, f"order/{epoch}"))]

    def positions(self, step: int) -> int:
        """Return the number of tokens, including padding, in an optimizer step."""
        parts = self.order(step).split(self.config.batch_size)
        return sum(len(part) * max(len(self.questions.ids[item]) for item in part.tolist()) for part in parts)

    def model(self) -> nn.Module:
        return self.adapted(load_model(self.base, DTYPES[self.config.base_precision])).to(self.device)

    def adapted(self, base: nn.Module) -> nn.Module:
        """Turn the base model in place into the trained model: add the adapter, or make the targets trainable."""
        base.requires_grad_(False)
        if self.config.init == "full":
            for layer in adapters.matching_modules(base, self.config.target_list).values():
                layer.weight.requires_grad_(True)
            return base.eval()
        model = self._with_adapter(base)
        if self.initial is None:
            self.initial = adapters.read_adapter(model)
        return model.eval()

    def _with_adapter(self, base: nn.Module) -> nn.Module:
        config = self.config
        known = self.initial is not None
        seed = generator(config.seed, "adapter").initial_seed()
        model = adapters.add_adapter(
            base,
            config.target_list,
            rank=config.rank,
            alpha=config.alpha,
            dropout=config.dropout,
            init="random" if known else config.init,
            seed=seed,
        )
        if self.initial is not None:
            adapters.write_adapter(model, self.initial)
        if config.residual:
            adapters.take_out(model)
        return model

    @property
    def scaling(self) -> float:
        """alpha / rank."""
        return self.config.alpha / self.config.rank

    def optimizers(self, model: nn.Module) -> Optimizers:
        """Return the configured optimizer for the trained weights; for Muon, all trained matrices count as hidden."""
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        hidden = [weight for weight in trained if weight.ndim == 2 or not self.config.entry.companion]
        others = [weight for weight in trained if weight.ndim != 2 and self.config.entry.companion]
        return build(self.config, [Group(hidden, others)], self.config.rate(self.steps, 1), ARGUMENTS)

    def objective(self) -> TokenMean:
        """Return the mean over answer tokens."""
        return TokenMean()

    def described_loss(self, *, plain: bool) -> str:
        """Return the loss in words."""
        weighing = "every question weighing the same" if plain else "every token weighing the same"
        return f"negative log-likelihood of answer tokens, natural logarithm, {weighing}"

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of mixed precision, if it is configured or chosen by auto."""
        return mixed_precision(self.config.precision, self.device)

    def batches(self, split: str, *, batch_size: int, ids: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        chosen = torch.as_tensor(self.example_ids[split] if ids is None else ids, dtype=torch.int64)
        for part in chosen.split(batch_size) if len(chosen) else ():
            yield self._batch(part)

    def _batch(self, ids: Tensor) -> Batch:
        items = ids.tolist()
        starts = [self.questions.starts[item] for item in items]
        tokens, mask, labels = collate([self.questions.ids[item] for item in items], starts)
        places, targets = answers_first(labels, starts)
        first, last = min(starts), tokens.shape[1]
        asked = {"input_ids": tokens, "attention_mask": mask, "logits_to_keep": last - first + 1}
        inputs = {"model": asked, "places": places - first, "predicted": targets != IGNORED}
        return Batch(inputs, targets, ids, mask.bool()).to(self.device)  # now, so that no size is asked of a device

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(**batch.inputs["model"]).logits  # from that before the first answer in the batch on
        rows = torch.arange(len(logits), device=logits.device)[:, None]
        predicting: Tensor = logits[rows, batch.inputs["places"]]
        return predicting.masked_fill(~batch.inputs["predicted"].unsqueeze(2), 0)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        sums, counts = answer_losses(outputs, batch.targets)
        return sums / counts

    def metrics(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        sums, counts = answer_losses(outputs, batch.targets)
        return {"nll": sums, "tokens": counts.to(sums)}

    def sites(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return the adapted layers by their path in the base model."""
        if self.config.init == "full":
            return adapters.matching_modules(model, self.config.target_list)
        return adapters.adapted_modules(model)

    def readout(self, model: nn.Module) -> None:
        """Return None, because the layer that computes the logits is not adapted."""

    def groups(self, model: nn.Module) -> ParameterGroups:
        """Return the blocks: the trained parameters of each entry of the model's list of layers."""
        names: dict[str, list[str]] = {}
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                names.setdefault(_block(name), []).append(name)
        order = list(names)
        return ParameterGroups(names, order[0], order[-1] if len(order) > 1 else None, None)


def _block(name: str) -> str:
    """Return the block of a path, which is its first number."""
    number = next((part for part in name.split(".") if part.isdecimal()), None)
    return "other" if number is None else f"block_{number}"
