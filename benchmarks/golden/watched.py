"""Own training loops and an own workload, with nfa's public names alone; a process of a group, imported by none."""

import mlflow
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STUDIES = "alignment,directions,flow"


def main() -> None:
    """A convolutional network watched by nfa.watch, a language model by the callback of transformers, a workload."""
    with mlflow.start_run(run_name="loop"):
        _loop()
    with mlflow.start_run(run_name="trainer"):
        _trainer()
    _workload()


def _loop() -> None:
    import nfa

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(),
        nn.Linear(12, 3),
    )  # fmt: skip
    inputs, targets = torch.randn(24, 1, 8, 8), torch.arange(24) % 3
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with nfa.watch(net, _cross_entropy, (inputs, targets), studies=STUDIES, relations="all", every=1) as watch:
        for step in range(4):
            print(sorted(watch.record(step).items()))
            optimizer.zero_grad()
            _cross_entropy(net(inputs), targets).mean().backward()
            optimizer.step()


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def _trainer() -> None:
    import transformers

    from nfa.callbacks.huggingface import WatchCallback

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    words = torch.randint(24, (16, 6))
    arguments = transformers.TrainingArguments(
        output_dir="trainer", max_steps=3, per_device_train_batch_size=4, learning_rate=0.01, use_cpu=True,
        report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no", seed=3,
    )  # fmt: skip
    probe = ({"input_ids": words[:6, :-1], "attention_mask": torch.ones(6, 5, dtype=torch.int64)}, words[:6, 1:])
    callback = WatchCallback(_next_word, probe, studies=STUDIES, every=1)
    rows = [{"input_ids": row, "labels": row} for row in words]
    model = transformers.LlamaForCausalLM(config)
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[callback])
    trainer.remove_callback(transformers.PrinterCallback)  # says how fast it was
    trainer.train()


def _workload() -> None:
    import nfa
    from nfa.testing import check_workload

    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(20, 5), torch.arange(20) % 3)
    check_workload(
        lambda: nfa.Supervised(
            model=lambda: nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)),
            loss=_cross_entropy, train=data, val=data, device="cpu",
        )
    )  # fmt: skip


def _next_word(logits: Tensor, words: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), words, reduction="none").mean(dim=1)


if __name__ == "__main__":
    main()
