"""The optimizers, one line each; what is offered, resolved, built and reckoned with of them comes from here.

Nothing heavy is imported: parameters are understood before PyTorch is loaded.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class OptimizerEntry:
    """A class as "module:name" with the learning rate and momentum of a classifier that says none (None: it has none).

    `copies` of what is trained are in a training state: the weights, and what the optimizer keeps beside them. With a
    `companion` it takes the hidden matrices only, and that one the readout.
    """

    made_by: str
    lr: float
    momentum: float | None
    copies: int
    companion: str = ""


OPTIMIZERS = {
    "sgd": OptimizerEntry("torch.optim:SGD", lr=0.1, momentum=0.0, copies=1),
    "adam": OptimizerEntry("torch.optim:Adam", lr=0.001, momentum=None, copies=3),
    "adamw": OptimizerEntry("torch.optim:AdamW", lr=0.001, momentum=None, copies=3),
    "muon": OptimizerEntry("torch.optim:Muon", lr=0.01, momentum=0.95, copies=2, companion="adam"),
}
