"""The sixteen models of docs/conformance.md, and further ones."""

from functools import partial

from tests.support.eeg_trainings import tiny_decoder
from tests.support.language_models import language_of_words
from tests.support.models.adapted import KINDS, adapted, lora
from tests.support.models.image import mixer, resnet, unet, vit, volumes
from tests.support.models.other import FunctionalTwin, functional, graphs, gru, lstm
from tests.support.models.text import bert, gpt2, llama, mixtral, mixtral_twin, t5
from tests.support.models.workloads import Foreign
from tests.support.toy_models import tiny_classifier

FOREIGN = {
    "ResNet": Foreign(resnet, quick=True),
    "ViT": Foreign(vit),
    "GPT-2, padded": Foreign(gpt2),
    "Llama": Foreign(llama),
    "BERT classifier, padded": Foreign(bert),
    "T5": Foreign(t5),
    "LSTM classifier": Foreign(lstm, quick=True),
    "MLP-Mixer": Foreign(mixer),
    "U-Net": Foreign(unet, quick=True),
    "Mixtral": Foreign(mixtral, twin=mixtral_twin),
    "graph network": Foreign(graphs, quick=True),
    "LoRA on a Llama": Foreign(lora),
    "functions only": Foreign(functional, twin=FunctionalTwin, quick=True),
}
FAMILIES = {
    "mlp": Foreign(tiny_classifier, quick=True),
    "eeg": Foreign(tiny_decoder, examples=3),
    "language": Foreign(partial(language_of_words, base_precision="float32"), unseen=("base_model.model.lm_head",)),
}
MODELS = {**FAMILIES, **FOREIGN}
FURTHER = {
    "GPT-2, padded to 13": Foreign(partial(gpt2, 13)),
    "GRU, two layers, both directions": Foreign(gru),
    "Conv3d": Foreign(volumes),
    **{kind: Foreign(partial(adapted, name, **options)) for kind, (name, options) in KINDS.items()},
}
