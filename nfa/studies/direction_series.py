"""The series of gradient directions, which reports read without PyTorch: those with a bootstrap, in the order of its
values, and those of them with a chance level.
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
WITH_CHANCE = (
    "mean_cosine",
    "within_class_cosine",
    "between_class_cosine",
    "silhouette",
    "label_noise_auc",
    "label_noise_auc_of_loss",
)
