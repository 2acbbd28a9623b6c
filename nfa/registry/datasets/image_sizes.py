"""Sizes of the published image data sets, known before they are read."""

PUBLISHED = {  # training examples, pixels (times colour channels) and classes
    "digits": (1437, 64, 10),
    "svhn": (73257, 3072, 10),
    "fashion-mnist": (60000, 784, 10),
    "cifar10": (50000, 3072, 10),
}


def train_size(published: int) -> int:
    """Return ⌊0.8·n⌋, how many of the n published training examples are trained on; the others are for validation."""
    return published * 4 // 5
