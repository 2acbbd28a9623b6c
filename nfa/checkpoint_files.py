"""File names and metadata of checkpoints."""

import re

ANSWERS = "answers"  # the metadata key of the model's answers on a few examples, as JSON
UNITS = {"epoch": 4, "step": 6}  # units in which checkpoints are counted, with the number of digits
NAME = re.compile(r"checkpoints/(epoch|step)_(\d+)\.safetensors")


def path_of(number: int, unit: str = "epoch") -> str:
    """Return the artifact path of a checkpoint.

    >>> path_of(20), path_of(40, "step")
    ('checkpoints/epoch_0020.safetensors', 'checkpoints/step_000040.safetensors')
    """
    return f"checkpoints/{unit}_{number:0{UNITS[unit]}d}.safetensors"
