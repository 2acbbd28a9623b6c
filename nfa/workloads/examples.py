"""Examples in the forms in which users have them: pairs, dicts, model answers, and masks of positions."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.workload import Batch

Loss = Callable[[Tensor, Any], Tensor]
Outputs = Callable[[nn.Module, Any], Tensor]
Present = Callable[[Any], Tensor]
LABELS = ("labels", "label")
MASK, DECODER = "attention_mask", "decoder_"  # a separate decoder has a decoder_attention_mask


def call(model: nn.Module, inputs: Any) -> Tensor:
    """Call a model and return its output tensor.

    Args:
        model: The model.
        inputs: Its inputs; a mapping is passed as keyword arguments.

    Returns:
        The answer if it is a tensor, its `logits` if it has some, or the first element of a tuple.

    Raises:
        Refusal: The answer is none of these.
    """
    answer = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    if isinstance(answer, Tensor):
        return answer
    logits = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    first = answer[0] if logits is None and isinstance(answer, tuple | list) and answer else logits
    if isinstance(first, Tensor):
        return first
    got = f"a model that returns a {type(answer).__name__}"
    remedy = "select the tensor, for example outputs=lambda model, inputs: model(inputs).last_hidden_state"
    raise Refusal(got, "a tensor, an object with logits, or a tuple that begins with a tensor", remedy)


def parted(example: Any) -> tuple[Any, Any]:
    """Split an example or a batch into inputs and targets.

    Args:
        example: A pair (inputs, targets), or a dict whose `labels` or `label` are the targets.

    Returns:
        Inputs and targets.

    Raises:
        Refusal: It is neither.
    """
    if isinstance(example, Mapping):
        label = next((name for name in LABELS if name in example), None)
        if label is not None:
            return {name: value for name, value in example.items() if name != label}, example[label]
        got = f"examples with {', '.join(map(str, example))}, but without labels"
        remedy = "pass pairs (inputs, targets), or call the targets 'labels'"
        raise Refusal(got, f"dicts with {' or '.join(LABELS)}", remedy)
    if isinstance(example, tuple | list) and len(example) == 2:
        return example[0], example[1]
    count = f" of {len(example)}" if isinstance(example, tuple | list) else ""
    got = f"examples that are a {type(example).__name__}{count}"
    raise Refusal(got, "pairs (inputs, targets), or dicts with labels", "put all inputs into one tuple or dict")


def own_positions(inputs: Any) -> Tensor | None:
    """Return which positions belong to an example, according to the attention mask among the inputs.

    The mask is that of the encoder, or that of the decoder if no other sequence is padded.

    Args:
        inputs: The inputs of some examples.

    Returns:
        The mask [n, s], true for positions that belong to the example; None without a mask, or if all do.

    Raises:
        Refusal: Encoder and decoder are padded to one length in different ways, so that one could be taken for the
            other.
    """
    masks = [mask for mask in (mask_of(inputs), mask_of(inputs, DECODER)) if mask is not None]
    if len(masks) == 2 and masks[0].shape == masks[1].shape and not torch.equal(*masks):
        got = f"an encoder and a decoder that are both padded to {masks[0].shape[1]} positions, in different ways"
        raise Refusal(got, "different lengths of the two", "pad the decoder's sequences by one more position")
    return next((mask for mask in masks if not mask.all()), None)


def mask_of(inputs: Any, prefix: str = "") -> Tensor | None:
    """Return the attention mask among inputs, true where a position counts.

    Args:
        inputs: The inputs of some examples.
        prefix: The beginning of the mask's name, such as "decoder_".

    Returns:
        The mask [n, s]; None if there is none.
    """
    mask = inputs.get(f"{prefix}{MASK}") if isinstance(inputs, Mapping) else None
    return mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None


def own_outputs(outputs: Tensor, batch: Batch) -> Tensor:
    """Set outputs at padding to 0, because they do not belong to the example.

    Args:
        outputs: The outputs [n, s, …].
        batch: The batch, with its masks.

    Returns:
        The masked outputs, or the outputs themselves where nothing is padded.
    """
    decoder = mask_of(batch.inputs, DECODER)
    present = batch.present if decoder is None else decoder
    if present is None or outputs.shape[:2] != present.shape:
        return outputs
    return outputs.masked_fill(~present.view(*present.shape, *[1] * (outputs.ndim - 2)), 0)


def rows(value: Any) -> int:
    """Return the number of examples in a tensor or in a container of tensors.

    Args:
        value: A tensor, or mappings, lists and tuples of tensors.

    Returns:
        The number of rows.

    Raises:
        Refusal: Something is no tensor, or the numbers of rows differ.
    """
    if isinstance(value, Tensor):
        return len(value)
    if not isinstance(value, Mapping | list | tuple):
        got = f"examples with a {type(value).__name__} among them"
        remedy = "leave it out, or make it a tensor: torch.as_tensor(…)"
        raise Refusal(got, "tensors, and dicts, lists and tuples of them", remedy)
    counts = [rows(part) for part in (value.values() if isinstance(value, Mapping) else value)]
    if len(set(counts)) != 1:
        got = f"a probe whose parts have {', '.join(map(str, counts)) or 'no'} rows"
        raise Refusal(got, "one row for each example in every tensor", "pass tensors of the same examples")
    return counts[0]


def are_classes(targets: Any) -> bool:
    """Tell whether targets are one whole number per example.

    Args:
        targets: The targets.

    Returns:
        True if they are.
    """
    if not isinstance(targets, Tensor) or targets.dim() != 1:
        return False
    return not (targets.dtype.is_floating_point or targets.dtype.is_complex)


def look_padded(inputs: Any) -> bool:
    """Tell whether sequences of whole numbers among the inputs end, or begin, in runs of one number that looks like
    padding.

    The runs have different lengths, and their number occurs nowhere else, or in most sequences and mostly there.

    Args:
        inputs: The inputs of some examples.

    Returns:
        True if they do.

    Example:
        >>> look_padded(torch.tensor([[5, 3, 7], [4, 0, 0]])), look_padded(torch.tensor([[5, 3, 0], [4, 7, 0]]))
        (True, False)
    """
    if isinstance(inputs, Mapping):
        return any(look_padded(part) for part in inputs.values())
    if isinstance(inputs, list | tuple):
        return any(look_padded(part) for part in inputs)
    if not isinstance(inputs, Tensor) or inputs.dim() != 2 or inputs.dtype not in (torch.int32, torch.int64):
        return False
    return min(inputs.shape) > 1 and (_end_in_padding(inputs) or _end_in_padding(inputs.flip(1)))


def _end_in_padding(tokens: Tensor) -> bool:
    for number in tokens[:, -1].unique():
        same = tokens == number
        runs = same.flip(1).cumprod(dim=1).sum(dim=1)
        many = 4 * int((runs > 1).sum()) >= 3 * len(runs) and 2 * int(runs.sum()) >= int(same.sum())
        nowhere_else = int(runs.max()) > 1 and int(same.sum()) == int(runs.sum())
        if int(runs.min()) < int(runs.max()) and (many or nowhere_else):
            return True
    return False


def check_padding(inputs: Any) -> None:
    """Check that a mask marks the padding of inputs that look padded.

    Args:
        inputs: The inputs of some examples.

    Raises:
        Refusal: Inputs look padded, and there is no mask.
    """
    parts = inputs if isinstance(inputs, Mapping) else {"": inputs}
    for name, part in parts.items():
        prefix = DECODER if str(name).startswith(DECODER) else ""
        if look_padded(part) and mask_of(inputs, prefix) is None:
            raise Refusal(
                "sequences that look padded, while nothing says which positions are an example's own",
                f"{'a' if prefix else 'an'} {prefix}{MASK} among the inputs, or present=",
                f"pass a dict with {prefix}{MASK}, or present= (true where a position counts; all true if all do)",
            )
