"""What is known of published data sets of images before they are read."""

PUBLISHED = {  # training examples, pixels (colours apart) and classes
    "digits": (1437, 64, 10),
    "svhn": (73257, 3072, 10),
    "fashion-mnist": (60000, 784, 10),
    "cifar10": (50000, 3072, 10),
}


def train_size(published: int) -> int:
    """⌊0.8·n⌋ of the n published training examples; the others are for validation."""
    return published * 4 // 5
