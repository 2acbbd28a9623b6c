"""The programs in docs/examples, and the blocks and commands of README and docs, do what they say."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nfa
from nfa.bookkeeping import is_bookkeeping
from nfa.levels import is_beside
from nfa.maths.statistics import t_interval
from nfa.registry import cli, tracking
from nfa.registry.datasets import image_files
from nfa.registry.entry_points import entry_points
from nfa.registry.families.eeg.config import PRESETS
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.registry import FAMILIES, family
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training import start
from tests.support.analyses import series, undrawn
from tests.support.processes import ROOT
from tests.support.programs import example
from tests.support.stores import Finished, Store
from tests.support.toy_models import layers, seeded
from tests.support.workload_files import train_lab
from tests.test_extending import PARTS

CONFIGS = {name: point.parameters for name, point in entry_points().items()}

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
GUIDES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in (
    "commands", "your_model", "your_training_loop", "notebook", "runs", "reading_the_numbers", "limitations",
    "troubleshooting",
))]  # fmt: skip
DEFAULT = {"agop_nfm", "agop_nfm_init_removed", "g_vs_h", "g_vs_m", "h_vs_m"}


# ---- programs


@pytest.fixture
def undrawn_store(store: Store) -> Iterator[Store]:
    with undrawn():
        yield store


def assert_recorded(store: Store, name: str, sites: set[str], steps: list[int]) -> None:
    (run_id,) = store.runs()
    assert store.rows("SELECT name, status FROM runs") == [(name, "FINISHED")]
    found = series(store, run_id)
    assert {key.rpartition("/")[0] for key in found} == {*sites, "probe"}
    assert {key.rpartition("/")[2] for key in found if not is_beside(key)} == {*DEFAULT, "loss"}
    for key, of_key in found.items():
        if not key.endswith(("_se", "_unbiased")):  # none where a few examples decide
            assert list(of_key) == (steps[1:] if "init_removed" in key else steps), key
    assert found["probe/loss"][steps[-1]] < found["probe/loss"][0]
    assert store.json(run_id, "alignment.json")["sites"]
    assert store.artifact(run_id, "similarities.csv").exists()


def test_the_cnn_records_each_layer_at_each_epoch(undrawn_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    example("cnn").main("digits", examples=300, epochs=2)
    assert_recorded(undrawn_store, "cnn on digits", {"0", "3", "5"}, [0, 1, 2])
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0].strip() for line in said] == ["watch  alignment", "epoch 1", "epoch 2", "done  http"]
    assert all("loss " in line and "AGOP vs NFM 0." in line for line in said[1:-1])


def test_the_transformer_records_every_projection_inside_attention(undrawn_store: Store) -> None:
    example("transformer").main("digits", examples=300, steps=20)
    inside = [*(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")), "linear1", "linear2"]
    sites = {"embedding", *(f"encoder.layers.{index}.{name}" for index in (0, 1) for name in inside)}
    assert_recorded(undrawn_store, "transformer on digits", sites, [0, 20])


def test_grokking_is_drawn_of_runs_with_a_column_each(undrawn_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"workload": "modular-addition", "workload_args": "modulus=5", "epochs": 2, "schedule": "0-2"}
    run_ids = [train_lab(undrawn_store, seed=seed, **asked) for seed in (1, 2)]
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    example("grokking").main(run_ids)
    above, below = drawn[0].axes[:2], drawn[0].axes[2:]
    assert [axes.get_title() for axes in above] == ["seed 1", "seed 2"]
    for run_id, axes in zip(run_ids, below, strict=True):
        found = series(undrawn_store, run_id)["0/agop_known"]
        line = next(line for line in axes.get_lines() if line.get_label() == "AGOP")
        assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == found


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
@pytest.mark.usefixtures("no_accelerator")
def test_the_loop_of_accelerate_records_optimizer_steps_and_keeps_checkpoints(
    mixed_precision: str, undrawn_store: Store
) -> None:
    example("accelerate_loop").main("digits", examples=300, epochs=5, mixed_precision=mixed_precision)
    assert_recorded(undrawn_store, "mlp on digits", {"0", "2"}, [0, 20, 25])
    assert tracking.epochs(undrawn_store.runs()[0]) == [0, 20, 25]


def points(axes: Axes, label: str) -> dict[float, float]:
    line = next(line for line in axes.get_lines() if line.get_label() == label)
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_a_layer_without_a_unit_alive_has_no_cosine_and_the_next_layer_still_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limitations = example("limitations")
    monkeypatch.setattr(limitations, "ALIVE", (64, 0))
    assert [list(points(axes, "value")) for axes in limitations.dead_units(epoch=0).axes] == [[0], [0, 1], [0]]


@pytest.mark.slow
def test_the_pictures_of_the_limitations_show_what_their_captions_say(tmp_path: Path) -> None:
    figures = example("limitations").main(str(tmp_path), epochs=2, draws=2, sizes=(64, 1437))
    assert {f"limitations_{name}.png" for name in figures} == {file.name for file in tmp_path.iterdir()}
    named = (ROOT / "docs" / "limitations.md").read_text(encoding="utf-8")
    assert all(f"(figures/{file.name})" in named for file in tmp_path.iterdir())

    narrow, wide = (axes.get_title() for axes in figures["rank_one"].axes)
    assert float(narrow.split()[4]) > float(wide.split()[4])
    first = figures["initial_weights"].axes[0]
    shared = next(line for line in first.get_lines() if line.get_linestyle() == ":" and len(line.get_xdata()))
    assert points(first, "AGOP vs NFM")[0] == pytest.approx(shared.get_ydata()[0], abs=0.03)
    assert list(points(first, "init removed")) == [1, 2]
    assert [len(points(axes, "value")) for axes in figures["dead_units"].axes] == [7, 8, 7]
    plain, unbiased = (points(figures["few_examples"].axes[0], label) for label in ("plain", "unbiased"))
    assert plain[64] < unbiased[64]
    assert abs(unbiased[64] - plain[1437]) < abs(plain[64] - plain[1437])
    for line in figures["few_decide"].axes[0].get_lines():
        assert line.get_ydata()[-1] == pytest.approx(1)
        assert sorted(line.get_ydata()) == list(line.get_ydata())


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda file: file.stem)
def test_every_program_is_tested_and_named_in_a_guide(file: Path) -> None:
    tests = (test.read_text(encoding="utf-8") for test in Path(__file__).parent.glob("test_*.py"))
    assert any(f'example("{file.stem}")' in test for test in tests)
    assert any(f"(examples/{file.name})" in guide.read_text(encoding="utf-8") for guide in GUIDES)


# ---- blocks of README and of the guides in docs


def blocks(kind: str) -> list[str]:
    """Those that no test of docs/extending.md executes."""
    executed = [text for part in PARTS.values() for _, text in part]
    text = "\n".join(guide.read_text(encoding="utf-8") for guide in GUIDES)
    return [found for found in re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) if found not in executed]


def block(word: str) -> str:
    """The one block of Python that has this word."""
    (found,) = (text for text in blocks("python") if word in text)
    return found


def test_every_block_of_python_is_executed() -> None:
    words = re.findall(r'block\("([^"]+)"\)', Path(__file__).read_text(encoding="utf-8"))
    assert len(blocks("python")) > 5
    assert [text for text in blocks("python") if not any(word in text for word in words)] == []


def test_the_readme_has_the_size_of_a_first_reading() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_guides_python_runs(changeable: Finished) -> None:
    pulling, watching = block("nfa.load_checkpoint"), block("train_one_epoch(model)")
    pulled: dict[str, Any] = {}
    exec(pulling.replace("workload.losses", "it = workload.losses"), pulled)
    logged = {key: value for key, _, value in changeable.store.metrics(changeable.run_id) if key == "test/loss"}
    assert float(pulled["it"].detach()) == pytest.approx(logged["test/loss"], rel=1e-6)
    assert not pulled["model"].training
    assert len(pulled["batch"]) == len(pulled["workload"].ids("test")) == 360
    assert torch.equal(pulled["outputs"], pulled["model"](pulled["batch"].inputs))

    model = seeded(layers, 4, 6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = torch.randn(12, 4), torch.randint(3, (12,))

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    def train_one_epoch(model: nn.Module) -> None:
        optimizer.zero_grad()
        loss(model(probe[0]), probe[1]).mean().backward()
        optimizer.step()

    with undrawn():
        exec(
            watching,
            {"model": model, "loss": loss, "probe": probe, "train_one_epoch": train_one_epoch},
        )
    found = series(changeable.store, next(run_id for run_id in changeable.store.runs() if run_id != changeable.run_id))
    assert list(found["0/agop_nfm"]) == list(range(11))


def test_the_values_of_a_run_are_read_as_the_guide_reads_them(changeable: Finished) -> None:
    given: dict[str, Any] = {"nfa": nfa}
    exec(block("table.at(best=").replace("step=20", "step=4"), given)
    logged = {key for key, _, _ in changeable.store.metrics(changeable.run_id)}
    assert set(given["table"].keys) == {key for key in logged if not is_beside(key) and not is_bookkeeping(key)}


def test_checkpoints_from_elsewhere_become_a_run_with_curves(undrawn_store: Store, tmp_path: Path) -> None:
    models = {step: seeded(layers, 4, 6, 3, seed=step) for step in (20, 3)}
    files = {step: tmp_path / f"{step}.pt" for step in models}
    for step, model in models.items():
        torch.save(model.state_dict(), files[step])
    inputs, targets = torch.randn(12, 4), torch.arange(12) % 3

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    given = {"model": layers(4, 6, 3), "loss": loss, "probe": (inputs, targets), "files": files}
    exec(block("first, *later"), given)
    found = series(undrawn_store, undrawn_store.runs()[0])["0/agop_nfm"]
    assert found == {
        step: pytest.approx(nfa.alignment(models[step], loss, (inputs, targets))["0/agop_nfm"]) for step in (3, 20)
    }


def test_the_difference_between_two_optimizers_is_that_of_pairs_with_the_same_seed(
    undrawn_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"epochs": 1, "width": 4, "depth": 1, "schedule": "0", "max_samples": 32, "device": "cpu"}
    start.train(TrainConfig(seeds="1-3", optimizer="all", **tiny), Stopwatch(), None)
    given: dict[str, Any] = {}
    exec(block("ttest_rel"), given)
    params = {run_id: undrawn_store.params(run_id) for run_id in undrawn_store.runs()}
    last = {
        (of["optimizer"], of["seed"]): series(undrawn_store, run_id)["layer_0/agop_nfm"][1]
        for run_id, of in params.items()
        if "seed" in of
    }
    differences = [last["adam", seed] - last["sgd", seed] for seed in "123"]
    interval = t_interval(differences)
    assert interval
    assert given["pairs"].shape == (3, 2)
    said = re.findall(r"(?:low|high)=(?:np\.float64\()?([-\d.e]+)", capsys.readouterr().out.splitlines()[-1])
    assert [float(number) for number in said] == pytest.approx([interval.low, interval.high])


def test_the_command_that_opens_the_ui_without_make_is_that_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (made,) = re.findall(r"^\t(MLFLOW_SERVER_.*)$", makefile, re.MULTILINE)
    typed = made.replace("$(BIN)/", "").replace("$(PORT)", "5000")
    assert f"\n    {' '.join(typed.split())}\n" in (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")


def test_the_page_of_conventions_has_the_presets_of_the_code() -> None:
    page = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    for preset, said in PRESETS.items():
        values = [str(value).lower() if isinstance(value, bool) else f"{value:g}" for value in said.values()]
        row = r" \| ".join([f"`{preset}`(?: [^|]*)?", *map(re.escape, values)])
        assert re.search(rf"^\| {row} \|$", page, re.MULTILINE), preset


def test_the_page_on_tuning_has_the_spaces_of_the_code() -> None:
    page = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8").replace("\\|", "|")
    for name in FAMILIES:
        row = f"| {'any other' if name == 'custom' else f'`{name}`'} | `{family(name).space}` |"
        assert row in page, name


def test_the_page_on_installing_names_the_files_of_every_published_data_set() -> None:
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    for dataset, source in image_files.SOURCES.items():
        assert all(f"`{name}`" in page for name, *_ in source.files.values()), dataset
        assert all(f"`{folder}`" in page for folder in (f"$NFA_CACHE/{dataset}", *source.folders))


def test_a_watch_in_every_process_records_in_the_first(undrawn_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    inputs, targets = torch.randn(12, 4), torch.arange(12) % 3

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    model = seeded(layers, 4, 6, 3)
    given = {"model": model, "loss": loss, "probe": (inputs, targets), "loader": [(inputs, targets)] * 3}
    given["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        exec(block("init_process_group").replace("every=100", "every=2"), given)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert list(series(undrawn_store, undrawn_store.runs()[0])["0/agop_nfm"]) == [0, 2, 3]


def test_a_loop_with_groups_and_a_schedule_is_resumed_with_both(
    undrawn_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab,) = (text for kind, text in PARTS["A new workload"] if text.startswith("# my_lab.py"))
    (tmp_path / "my_lab.py").write_text(lab, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_lab", raising=False)
    whole: dict[str, Any] = {}
    exec(block("OneCycleLR"), whole)
    (run_id,) = undrawn_store.runs()
    assert tracking.epochs(run_id) == [0, 1, 2, 3]
    decays = [group["weight_decay"] for group in whole["optimizer"].param_groups]
    assert decays == [0.1, 0.1, 0.0]
    resumed: dict[str, Any] = {}
    exec(block("OneCycleLR").replace("start_run()", f"start_run(run_id={run_id!r})"), resumed)
    assert resumed["scheduler"].last_epoch == whole["scheduler"].last_epoch == 24
    assert resumed["scheduler"].get_last_lr() == whole["scheduler"].get_last_lr()


def test_shuffled_labels_are_the_same_labels_at_other_inputs() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(700.0)[:, None], torch.arange(700) % 3)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    given: dict[str, Any] = {"torch": torch, "nfa": nfa, "Subset": torch.utils.data.Subset, "data": data, "loss": loss}
    given["net"] = lambda width: layers(1, width, 3)
    exec(block("shuffled_labels"), given)
    right, wrong = (next(given["make"](shuffled=way).batches("train", batch_size=500)) for way in (False, True))
    assert torch.equal(right.inputs, wrong.inputs)
    assert not torch.equal(right.targets, wrong.targets)
    assert torch.equal(right.targets.sort().values, wrong.targets.sort().values)


def test_the_guides_callback_records_in_a_trainer(undrawn_store: Store, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    words = torch.randint(1, 7, (8, 5), generator=torch.Generator().manual_seed(0))
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8}
    model = seeded(GPT2LMHeadModel, GPT2Config(vocab_size=7, bos_token_id=1, eos_token_id=1, **sizes))
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True
    )

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").mean(dim=1)

    given = {
        "mlflow": mlflow, "Trainer": Trainer, "model": model, "arguments": arguments, "loss": loss,
        "probe": {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": words},
        "rows": [{"input_ids": row, "labels": row} for row in words],
    }  # fmt: skip
    exec(block("callbacks.huggingface"), given)
    found = series(undrawn_store, undrawn_store.runs()[0])
    assert list(found["transformer.h.0.mlp.c_fc/h_vs_m"]) == [0, 2]
    assert list(found["flow/transformer.h.0.mlp.c_fc/grad_rms"]) == [0, 2]
    assert tracking.epochs(undrawn_store.runs()[0]) == [0, 2]


def test_the_guides_callback_records_in_lightning(undrawn_store: Store) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from tests.test_lightning import Classifier, cross_entropy, data

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = partial(pl.Trainer, accelerator="cpu", enable_checkpointing=False, **quiet)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=6)
    given = {
        "mlflow": mlflow, "Trainer": trainer, "module": seeded(Classifier, 0.2), "loader": loader,
        "loss": cross_entropy, "probe": data(),
    }  # fmt: skip
    exec(block("callbacks.lightning"), given)
    (run_id,) = undrawn_store.runs()
    found = list(series(undrawn_store, run_id)["flow/0.0/grad_rms"])
    assert (found[0], found[-1]) == (0, 8)
    assert tracking.epochs(run_id) == found


def test_the_guides_workload_is_the_program_and_conforms_and_is_analysed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (ROOT / "docs" / "examples" / "my_lab.py").read_text(encoding="utf-8")
    assert program.partition("\n\n")[2] == block("image_datasets")
    my_lab = example("my_lab")
    my_lab.make = partial(my_lab.make, width=2, images="digits")
    monkeypatch.setitem(sys.modules, "my_lab", my_lab)
    given: dict[str, Any] = {}
    exec(block("check_workload"), given)
    named = {f"{site}/{key}" for site in ("0.0", "0.3", "2") for key in ("g_vs_h", "h_vs_m")}
    assert {key for key in given["values"] if not is_beside(key)} == named
    assert "seen: 4 of 4 linear maps" in capsys.readouterr().out


def test_shell_blocks_hold_commands_that_are_checked_here() -> None:
    for lines in blocks("sh"):
        for line in lines.splitlines():
            assert line.startswith(("mlflow run . -e ", "make ", "pip install -c constraints.txt -e '.[all]'")), line


# ---- commands anywhere in README and docs


def commands() -> list[tuple[str, str]]:
    """Entry point and the words after it of every `mlflow run`, in blocks, comments and lines."""
    text = re.sub(r"<[a-z ]+>", "abc", TEXT)  # a placeholder
    return re.findall(r"mlflow run \. -e (\w+)((?: +-P [\w.]+=(?:'[^']*'|[^\s`'|)]+))*)", text)


def test_there_are_commands_for_every_entry_point() -> None:
    assert {name for name, _ in commands()} >= set(CONFIGS)


@pytest.mark.parametrize(("name", "parameters"), sorted(set(commands())))
def test_every_command_is_understood(name: str, parameters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs" / "examples")  # where my_lab.py is
    pairs = [word.partition("=") for word in shlex.split(parameters) if word != "-P"]
    argv = [word for key, _, value in pairs for word in (f"--{key}", value)]
    if name == "import_checkpoints" and not argv:
        argv = ["--folder", "old"]
    config = cli.parse(CONFIGS[name], argv)
    for key, _, value in pairs:
        understood = getattr(config, key)
        said = str(understood).lower() if isinstance(understood, bool) else str(understood)
        assert said == value or (isinstance(understood, float) and understood == float(value))


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {word for words in re.findall(r"`make ([a-z -]+)[`A-Z]|^make ([a-z-]+)", TEXT, re.M) for word in words}
    targets = {target for words in named for target in words.split()}
    assert {"demo", "train", "test", "test-all", "ui", "bench", "lint"} <= targets
    assert targets <= set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page ends with."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_a_heading_that_are_there() -> None:
    for page in PAGES:
        for address, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
            file = (page.parent / address) if address else page
            assert address.startswith("http") or file.exists(), f"{page.name}: {address}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {address}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_of_the_project_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`((?:nfa|tests|benchmarks|docs|entrypoints)/[\w./]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists() and not is_bookkeeping(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_row_of_a_table_has_the_cells_of_its_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        bars = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert len(set(bars)) == 1, table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_command_within_a_text_is_cut_by_the_end_of_a_line(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert [span for part in text.split("\n\n") for span in re.findall(r"`[^`]*`", part) if "\n" in span] == []


def test_messages_that_the_troubleshooting_page_quotes_are_those_of_the_code() -> None:
    """A quotation stands between asterisks; … is what differs from case to case."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "nfa").rglob("*.py")]
    texts = [str(node.value) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [part.strip() for text in re.findall(r"\*([^*|]+)\*", page) for part in text.split("…") if part.strip()]
    assert len(quoted) > 15
    assert [part for part in quoted if not any(part in text for text in texts)] == []


def test_calls_about_a_model_at_hand_run() -> None:
    model, inputs, targets = seeded(layers, 4, 6, 3), torch.randn(12, 4), torch.arange(12) % 3

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    given: dict[str, Any] = {"nfa": nfa, "model": model, "loss": loss, "probe": (inputs, targets)}
    exec(block("nfa.gradient_gram(model"), given)
    assert 0 < given["table"]["0/h_vs_m"] < 1
    assert given["K"].shape == (12, 12)
    given["torch"] = torch
    exec(block("torch.func"), given)
    assert torch.allclose((given["vectors"] @ given["vectors"].T).double(), given["K"], atol=1e-5)
    exec(block("at initialisation"), given)
    assert {"0/agop_nfm", "0/h_vs_m"} <= {row.key for row in given["table"]}
