"""The series of gradient directions that have a bootstrap, in the order of its values; reports read it without PyTorch.
"""

SERIES = (
    "mean_cosine",
    "within_class_cosine",
    "between_class_cosine",
    "silhouette",
    "effective_rank",
    "noise_scale",
    "mean_gradient_squared",
    "gradient_variance",
    "label_noise_auc",
    "label_noise_auc_of_loss",
)
