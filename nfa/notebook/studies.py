"""`nfa.alignment`, `nfa.gradient_directions`, `nfa.gradient_flow` and `nfa.gradient_gram`, for a model as it is now.

They take model, loss, probe and options as `nfa.watch` does, refuse what it refuses, and leave the model unchanged.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch.nn as nn
from torch import Tensor

from nfa.notebook.table import ValueTable
from nfa.watching.models import observable
from nfa.watching.options import Asked
from nfa.watching.start import Start
from nfa.watching.studies import WatchedAlignment, WatchedDirections, WatchedFlow, WatchedStudy
from nfa.watching.subject import Subject
from nfa.workloads.examples import Loss, call

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Study = TypeVar("Study", bound=WatchedStudy)


def alignment(model: nn.Module, loss: Loss, probe: Any, **options: Any) -> ValueTable:
    """Compute relations of weights, representations and gradients at every site.

    Relations to the initial weights are left out, because these are not known.

    Args:
        model: The model.
        loss: A function of outputs and targets that returns one loss per example [n].
        probe: The examples: (inputs, targets), a dict with labels, a DataLoader or a Dataset, as `nfa.watch` takes
            them.
        **options: `outputs`, `present`, `examples`, `known_features`, `relations`, `sites`, `centre`, `agop_power`,
            `positions`, `max_samples`, `batch_size`, `precision`, `directions`, `top_k`, `chance` and `seed` of
            `nfa.watch`.

    Returns:
        The values, one row for each relation at each site.

    Raises:
        Refusal: The model, the loss or an option cannot be used.

    Example:
        >>> import torch, nfa
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
        >>> loss = torch.nn.CrossEntropyLoss(reduction="none")
        >>> table = nfa.alignment(model, loss, (torch.randn(8, 4), torch.randint(3, (8,))), relations="?_vs_?")
        >>> [row.key for row in table]
        ['0/g_vs_h', '0/g_vs_m', '0/h_vs_m']
    """
    model, study, subject = _opened(WatchedAlignment, "alignment", model, loss, probe, options)
    with observable(model):
        values = study.values(model, 0)
    return ValueTable.of(values, "", study.described(), partial(_relations, values, study.described(), subject))


def gradient_directions(model: nn.Module, loss: Loss, probe: Any, **options: Any) -> ValueTable:
    """Compare the directions of per-example gradients: cosines, silhouette, effective rank, noise scale and more.

    Args:
        model: The model.
        loss: A function of outputs and targets that returns one loss per example [n].
        probe: The examples: (inputs, targets), a dict with labels, a DataLoader or a Dataset, as `nfa.watch` takes
            them.
        **options: `outputs`, `present`, `examples`, `parameters`, `max_samples`, `sketch`, `chance` and `seed` of
            `nfa.watch`.

    Returns:
        The values; their plot is the matrix of cosines.

    Raises:
        Refusal: The model, the loss or an option cannot be used.
    """
    model, study, subject = _opened(WatchedDirections, "gradient_directions", model, loss, probe, options)
    with observable(model):
        result = study.analysis(model)
    draw = partial(_cosines, result.arrays, study.analysis.classes, subject)
    return ValueTable.of(result.scalars, "gradient/", study.described(), draw)


def gradient_flow(model: nn.Module, loss: Loss, probe: Any, **options: Any) -> ValueTable:
    """Measure how large the gradient of the mean loss is in each part of the model (root mean square of its entries).

    Args:
        model: The model.
        loss: A function of outputs and targets that returns one loss per example [n].
        probe: The examples: (inputs, targets), a dict with labels, a DataLoader or a Dataset, as `nfa.watch` takes
            them.
        **options: `outputs`, `present`, `examples`, `max_samples` and `batch_size` of `nfa.watch`.

    Returns:
        The values, one row for each part and each ratio between parts.

    Raises:
        Refusal: The model, the loss or an option cannot be used.
    """
    model, study, subject = _opened(WatchedFlow, "gradient_flow", model, loss, probe, options)
    with observable(model):
        values = study.values(model, 0)
    return ValueTable.of(values, "flow/", study.described(), partial(_parts, values, study.described(), subject))


def gradient_gram(model: nn.Module, loss: Loss, probe: Any, **options: Any) -> Tensor:
    """Compute the Gram matrix of per-example gradients, K_ab = ⟨∂ℓ_a/∂θ, ∂ℓ_b/∂θ⟩.

    Args:
        model: The model.
        loss: A function of outputs and targets that returns one loss per example [n].
        probe: The examples: (inputs, targets), a dict with labels, a DataLoader or a Dataset, as `nfa.watch` takes
            them.
        **options: `outputs`, `present`, `examples`, `parameters`, `max_samples`, `sketch` and `seed` of `nfa.watch`;
            `sketch` is "none" by default.

    Returns:
        K [n, n] in float64 on the CPU, in the order of the probe's examples.

    Raises:
        Refusal: The model, the loss or an option cannot be used.

    Example:
        >>> import torch, nfa
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x, y = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.zeros(2)
        >>> nfa.gradient_gram(model, lambda outputs, targets: outputs[:, 0], (x, y))  # ∂ℓ/∂w = x
        tensor([[1., 1.],
                [1., 2.]], dtype=torch.float64)
    """
    options = {"sketch": "none", **options}
    model, study, _ = _opened(WatchedDirections, "gradient_gram", model, loss, probe, options)
    with observable(model):
        return study.analysis.gram(model)


def _opened(
    kind: type[Study], name: str, model: nn.Module, loss: Loss, probe: Any, options: Mapping[str, Any]
) -> tuple[nn.Module, Study, str]:
    """Unwrap the model and return it with a study of it, and what is studied in words; `Refusal` where it cannot be."""
    how: dict[str, Any] = {"outputs": call, "present": None, "examples": 512}
    how |= {"known_features": None} if name == "alignment" else {}
    chosen = {key: options.get(key, default) for key, default in how.items()}
    asked = Asked.once(name, {key: value for key, value in options.items() if key not in how})
    subject = Subject(model, loss, probe, asked, **chosen)
    (study,) = subject.studies(Start(subject.workload, subject.model))
    assert isinstance(study, kind)
    return subject.model, study, subject.title()


# ---- pictures


def _relations(values: Mapping[str, float], described: Mapping[str, Any], subject: str, title: str) -> "Figure":
    from nfa.figures.values_by_site import relations_by_site

    return relations_by_site(values, described["sites"], described["relations"], title=title or subject)


def _parts(values: Mapping[str, float], described: Mapping[str, Any], subject: str, title: str) -> "Figure":
    from nfa.figures.values_by_site import gradients_by_part

    return gradients_by_part(values, list(described["groups"]["names"]), title=title or subject)


def _cosines(arrays: Mapping[str, Any], classes: Tensor | None, subject: str, title: str) -> "Figure":
    import numpy as np

    from nfa.figures.gradient_pictures import DrawnDirections, gradient_similarities

    losses, found = arrays["losses"], None if classes is None else classes.numpy()
    order = np.lexsort((losses, np.zeros_like(losses) if found is None else found))
    drawn = DrawnDirections.in_order({"map": np.empty((0, 2)), **arrays}, order, losses, "examples", found)
    return gradient_similarities(drawn, title=title or subject)
