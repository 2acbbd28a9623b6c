"""Old checkpoint files: which file is an epoch's, what its name says, and its tensors under our names."""

import pytest
import torch
from torch import Tensor

from nfa.errors import Refusal
from nfa.registry.families.mlp.config import ImportConfig
from nfa.registry.families.mlp.model import MLP
from nfa.registry.families.mlp.old_checkpoints import OldFile, Sizes, agree, choose, complete, find, rename, sizes

CONFIG = ImportConfig(folder="old")
WORDS = {"dataset": "svhn", "width": "1024", "depth": "5", "activation": "relu"}
NAMED = ":svhn:width:1024:depth:5:act:relu:nn.pth"
IN_ORDER = {
    "model_epoch_7.pth": {},
    "models/model_epoch_7.pth": {},
    "models/model_epoch_7.pt": {},
    f"model_epoch_7{NAMED}": WORDS,
    f"models/model_epoch_7{NAMED}": WORDS,
    "models/model_epoch_7_svhn_width_1024_depth_5_act_relu_nn.pth": WORDS,
}


def old_state(depth: int, *, inputs: int = 6, width: int = 4, classes: int = 3, prefix: str = "") -> dict[str, Tensor]:
    """Weights under old names, first to last."""
    middle = {f"middle.{index}.1.weight": torch.randn(width, width) for index in range(depth - 1)}
    names = ("first.weight", "fc.1.weight") if depth == 1 else ("first.0.weight", "last.1.weight")
    state = {names[0]: torch.randn(width, inputs), **middle, names[1]: torch.randn(classes, width)}
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(("path", "words"), IN_ORDER.items())
def test_each_pattern_gives_the_epoch_and_what_the_name_says(path, words):
    assert find([path]) == {7: OldFile(path, words)}


@pytest.mark.parametrize("number", range(len(IN_ORDER)))
def test_the_first_pattern_that_has_a_file_wins(number):
    paths = list(IN_ORDER)[number:]
    assert find(reversed(paths))[7].path == paths[0]


def test_order_of_trial_is_that_of_each_epoch_and_epochs_are_sorted():
    files = find(["models/model_epoch_10.pt", "models/model_epoch_9.pt", "model_epoch_9.pth", "model_epoch_100.pth"])
    assert [(epoch, file.path) for epoch, file in files.items()] == [
        (9, "model_epoch_9.pth"),
        (10, "models/model_epoch_10.pt"),
        (100, "model_epoch_100.pth"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "model_epoch_7.pt",
        "model_epoch_.pth",
        "model_epoch_x.pth",
        "model_epoch_7.pth.bak",
        "old_model_epoch_7.pth",
        "model_epoch_7_final_nn.pth",
        "other/model_epoch_7.pth",
        "model_epoch_7:svhn:width:0:depth:5:act:relu:nn.pth",
        "model_epoch_7:svhn:width:8:act:relu:nn.pth",
        "model_epoch_-1.pth",
    ],
)
def test_other_names_are_no_checkpoints(path):
    assert find([path]) == {}


def test_free_text_between_epoch_and_ending_says_nothing():
    assert find(["models/model_epoch_7_from_monday_nn.pth"])[7].words == {}


@pytest.mark.parametrize("other", ["model_epoch_07.pth", f"model_epoch_8{NAMED}"])
def test_two_files_of_one_pattern_for_one_epoch_are_refused(other):
    beside = {"model_epoch_07.pth": "model_epoch_7.pth"}.get(other, other.replace("svhn", "cifar10"))
    with pytest.raises(
        Refusal, match=r"cannot use model_epoch_\S+ beside model_epoch_\S+\n  allowed: one file for epoch"
    ):
        find([other, beside])


def test_two_files_for_an_epoch_that_an_earlier_pattern_has_do_not_matter():
    paths = [f"model_epoch_8{NAMED}", f"model_epoch_8{NAMED}".replace("svhn", "cifar10"), "model_epoch_8.pth"]
    assert find(paths)[8].path == "model_epoch_8.pth"


FILES = find([f"model_epoch_{epoch}.pth" for epoch in (0, 1, 2, 5, 10)])


@pytest.mark.parametrize(
    ("epochs", "chosen"), [("all", [0, 1, 2, 5, 10]), ("0-2", [0, 1, 2]), ("10,5", [5, 10]), ("0-10/5", [0, 5, 10])]
)
def test_epochs_choose_files(epochs, chosen):
    assert list(choose(FILES, epochs, "old")) == chosen


def test_typed_epoch_without_a_file_is_refused_with_those_that_exist():
    with pytest.raises(
        Refusal, match=r"epochs=0-4 \(no file for 3, 4\)\n  allowed: epochs with a file: 0, 1, 2, 5, 10\n"
    ):
        choose(FILES, "0-4", "old")
    with pytest.raises(Refusal, match=r"\(no file for 3, 4, 6, 7, 8 and 991 more\)"):
        choose(FILES, "0-1000", "old")


def test_folder_without_checkpoints_is_refused_with_the_names_they_have():
    with pytest.raises(Refusal, match=r"folder=old .*\n  allowed: .*model_epoch_E.pth"):
        choose({}, "all", "old")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("dataset", "SVHN", "svhn"),
        ("dataset", "fashion_mnist", "fashion-mnist"),
        ("dataset", "FashionMNIST", "fashion-mnist"),
        ("dataset", "fmnist", "fashion-mnist"),
        ("dataset", "CIFAR-10", "cifar10"),
        ("dataset", "Digits", "digits"),
        ("activation", "ReLU", "relu"),
        ("activation", "LeakyReLU", "leaky_relu"),
        ("activation", "leaky_relu", "leaky_relu"),
        ("activation", "sin", "sine"),
        ("activation", "Tanh", "tanh"),
        ("activation", "linear", "identity"),
    ],
)
@pytest.mark.parametrize("separator", [":", "_"])
def test_words_of_old_names_become_allowed_values(name, text, value, separator):
    words = {"dataset": "svhn", "activation": "relu", name: text}
    parts = (words["dataset"], "width", "8", "depth", "2", "act", words["activation"], "nn.pth")
    files = find([f"models/model_epoch_3{separator}{separator.join(parts)}"])
    completed = complete(CONFIG, files)
    assert getattr(completed, name) == value
    assert (completed.width, completed.depth) == (8, 2)


def test_what_names_leave_open_parameters_say():
    config = ImportConfig(folder="old", dataset="digits", activation="tanh")
    assert complete(config, FILES) == config
    assert complete(ImportConfig(folder="old", dataset="svhn", width=1024), find([f"model_epoch_1{NAMED}"])).depth == 5


@pytest.mark.parametrize(
    ("given", "missing", "remedy"),
    [
        ({}, "dataset and activation", "give dataset=…, activation=…"),
        ({"dataset": "digits"}, "activation", "give activation=…"),
        ({"activation": "relu"}, "dataset", "give dataset=…"),
    ],
)
def test_what_nobody_says_is_asked_for_by_name(given, missing, remedy):
    with pytest.raises(Refusal, match=rf"model_epoch_0.pth, whose name does not state {missing}\n.*\n  do: {remedy}$"):
        complete(ImportConfig(folder="old", **given), FILES)


@pytest.mark.parametrize(
    ("name", "given", "named"),
    [("dataset", "digits", "svhn"), ("width", 8, 1024), ("depth", 3, 5), ("activation", "tanh", "relu")],
)
def test_parameter_that_contradicts_a_file_name_is_refused(name, given, named):
    with pytest.raises(
        Refusal, match=rf"{name}={named} \(model_epoch_1:.*\) beside {name}={given} \(parameter {name}\)"
    ):
        complete(ImportConfig(folder="old", **{name: given}), find([f"model_epoch_1{NAMED}"]))


def test_file_names_that_contradict_each_other_are_refused():
    files = find([f"model_epoch_1{NAMED}", f"model_epoch_2{NAMED}".replace("1024", "512")])
    with pytest.raises(Refusal, match=r"width=512 \(model_epoch_2:.*\) beside width=1024 \(model_epoch_1:"):
        complete(CONFIG, files)
    assert complete(CONFIG, choose(files, "2", "old")).width == 512


@pytest.mark.parametrize(("word", "other"), [("svhn", "celeba"), ("relu", "gelu")])
def test_unknown_word_in_a_name_is_refused_and_not_guessed(word, other):
    with pytest.raises(Refusal, match=rf"'{other}' in the name model_epoch_1:.*\n.*\n  do: .*rename the file"):
        complete(CONFIG, find([f"model_epoch_1{NAMED}".replace(word, other)]))


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "model.", "module._orig_mod.", "model.module.model."])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_weights_get_the_names_of_our_mlp_layer_by_layer(depth, prefix):
    state = old_state(depth, prefix=prefix)
    weights = rename(dict(reversed(state.items())), "x.pth")
    assert list(weights) == list(MLP(6, 3, width=4, depth=depth).state_dict())
    assert all(ours is old for ours, old in zip(weights.values(), state.values(), strict=True))
    assert sizes(weights, "x.pth") == Sizes(6, 4, depth, 3)


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
def test_an_average_of_networks_is_read_without_its_count(prefix):
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Sequential())
    count = {f"{prefix}{name}": tensor for name, tensor in averaged.state_dict().items()}
    assert len(count) == 1
    state = old_state(2, prefix=f"{prefix}module.")
    assert [*rename(count | state, "x.pth").values()] == [*state.values()]


def test_either_name_of_the_first_layer_is_understood_at_any_depth():
    state = old_state(2)
    state["first.weight"] = state.pop("first.0.weight")
    assert rename(state, "x.pth")["layers.0.weight"] is state["first.weight"]


WRONG_KEYS = {
    "bias": ({"first.0.bias": torch.zeros(4)}, [], r"x.pth: key first.0.bias \(unknown\)"),
    "another network": ({"conv1.weight": torch.zeros(4, 4)}, [], r"key conv1.weight \(unknown\)"),
    "twice": ({"first.weight": torch.zeros(4, 6)}, [], r"key first.weight \(a second one for the same layer\)"),
    "with and without prefix": ({"_orig_mod.last.1.weight": torch.zeros(3, 4)}, [], "a second one for the same layer"),
    "no first": ({}, ["first.0.weight"], "x.pth without first.weight"),
    "no last": ({}, ["last.1.weight"], "x.pth without last.1.weight"),
    "gap": ({}, ["middle.0.1.weight"], "x.pth without middle.0.1.weight"),
}


@pytest.mark.parametrize("case", WRONG_KEYS)
def test_keys_of_something_else_are_refused_by_name(case):
    more, without, message = WRONG_KEYS[case]
    state = {name: tensor for name, tensor in old_state(3).items() if name not in without} | more
    with pytest.raises(Refusal, match=rf"{message}.*\n  allowed: first.weight"):
        rename(state, "x.pth")


def test_empty_file_lacks_its_weights():
    with pytest.raises(Refusal, match=r"x.pth without first.weight, last.1.weight"):
        rename({}, "x.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_file_and_key(value):
    state = old_state(2)
    state["middle.0.1.weight"][1, 2] = value
    with pytest.raises(Refusal, match=r"x.pth: middle.0.1.weight \(not all values are finite\)"):
        rename(state, "x.pth")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32])
def test_weights_that_would_have_to_be_converted_are_refused(dtype):
    state = {**old_state(2), "last.1.weight": torch.ones(3, 4, dtype=dtype)}
    with pytest.raises(Refusal, match=rf"x.pth: last.1.weight \({dtype}, shape \[3, 4\]\)\n  allowed: dense float32"):
        rename(state, "x.pth")


def test_weight_that_is_no_matrix_is_refused():
    with pytest.raises(Refusal, match=r"first.0.weight \(torch.float32, shape \[4\]\)"):
        rename({**old_state(2), "first.0.weight": torch.ones(4)}, "x.pth")


@pytest.mark.parametrize(
    ("key", "shape"), [("middle.0.1.weight", (4, 5)), ("last.1.weight", (3, 5)), ("first.0.weight", (5, 6))]
)
def test_matrices_that_do_not_make_one_mlp_are_refused(key, shape):
    weights = rename({**old_state(2), key: torch.ones(shape)}, "x.pth")
    with pytest.raises(Refusal, match=rf"x.pth: shapes .*\[{shape[0]}, {shape[1]}\]"):
        sizes(weights, "x.pth")


def test_tensors_say_what_was_left_open():
    assert agree(CONFIG, Sizes(6, 4, 2, 3), "x.pth") == ImportConfig(folder="old", width=4, depth=2)


@pytest.mark.parametrize(("name", "known", "found"), [("width", 8, 4), ("depth", 1, 2)])
def test_tensors_that_contradict_what_is_known_are_refused(name, known, found):
    with pytest.raises(Refusal, match=rf"x.pth: {name} {found} in its tensors\n  allowed: {name}={known}"):
        agree(ImportConfig(folder="old", **{name: known}), Sizes(6, 4, 2, 3), "x.pth")
