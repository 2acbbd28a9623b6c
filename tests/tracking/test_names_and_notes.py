"""Names that we give runs and models, and descriptions that MLflow's UI shows; what a user wrote stays."""

import pytest
from mlflow.utils.name_utils import _generate_random_name
from PIL import Image

from nfa.registry import tracking
from nfa.registry.descriptions import describe_end, describe_start, table_of_children
from nfa.registry.tracking import artifacts
from nfa.registry.tracking.checkpoints import model_name
from nfa.registry.tracking.generated_names import is_generated
from nfa.registry.tracking.notes import NOTE
from nfa.registry.tracking.pictures import WIDEST
from nfa.registry.tracking.store import client
from tests.support.stores import Store

TEXT = "a study of mine"


def picture(width: int) -> Image.Image:
    return Image.new("RGB", (width, 300))


def note_of(run: tracking.TrackedRun) -> str:
    return str(client().get_run(run.run_id).data.tags.get(NOTE, ""))


def test_every_name_that_mlflow_makes_up_is_recognised() -> None:
    assert all(is_generated(_generate_random_name(max_length=99)) for _ in range(300))


@pytest.mark.parametrize("name", ["sgd-wide-3", "my run", "sassy-cub", "sassy-cub-x", ""])
def test_a_name_of_a_user_is_not_taken_for_one_of_mlflow(name: str) -> None:
    assert not is_generated(name)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("made", "given", "expected"), [(None, "", "content"), (None, "mine", "mine"), ("of user", "", "of user")]
)
def test_a_run_that_mlflow_run_made_is_renamed_unless_the_user_named_it(
    made: str | None, given: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = client().create_run("0", run_name=made).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    opened = tracking.open_run("train", "mlp", name=given, otherwise="content")
    assert opened.run_id == run_id
    assert client().get_run(run_id).info.run_name == opened.info.info.run_name == expected


@pytest.mark.parametrize("bad", ["a/b", "a:b", "a.b", "a%b", 'a"b', "a'b"])
def test_a_model_has_a_name_that_mlflow_accepts(bad: str, store: Store) -> None:
    name = model_name(bad, "epoch", 3)
    assert client().create_logged_model("0", name=name).name == name
    assert store.rows("SELECT name FROM logged_models") == [(name,)]


@pytest.mark.usefixtures("store")
def test_a_description_is_replaced_by_a_later_one_of_ours() -> None:
    with tracking.open_run("train", "mlp") as run:
        describe_start(run, "An MLP", "start it again.")
        assert note_of(run) == "An MLP\n\nIt has started. If it was stopped, start it again."
        describe_end(run, "An MLP", results=["test accuracy 0.5"], after="nfa analyze")
        assert note_of(run) == "An MLP\n\n- test accuracy 0.5\n\nNext:\n\n```\nnfa analyze\n```"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("text", [TEXT, ""])
def test_a_description_that_a_user_wrote_or_emptied_stays(text: str) -> None:
    with tracking.open_run("train", "mlp") as run:
        describe_start(run, "An MLP", "start it again.")
        run.tag({NOTE: text})
        describe_end(run, "An MLP", after="nfa analyze")
        assert note_of(run) == text


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("width", "shown", "size"), [(900, "second", (900, 300)), (2000, "preview", (WIDEST, 150))], ids=["small", "large"]
)
def test_a_description_shows_the_first_figure_that_exists_as_large_as_the_page(
    width: int, shown: str, size: tuple[int, int]
) -> None:
    with tracking.open_run("train", "mlp") as run:
        artifacts.put(run.info, "plots/second.png", lambda file: picture(width).save(file, format="PNG"))
        describe_end(run, "An MLP", pictures=["first", "second"], after="nfa analyze")
        small, large = (f"get-artifact?path=plots%2F{name}.png&run_uuid={run.run_id}" for name in (shown, "second"))
        assert note_of(run).endswith(f"```\n\n[![plots/second.png]({small})]({large})")
        with Image.open(artifacts.get(run.run_id, f"plots/{shown}.png")) as found:
            assert found.size == size


@pytest.mark.usefixtures("store")
def test_a_description_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "geheim")
    with tracking.open_run("train", "mlp") as run:
        describe_start(run, "postgresql://me:geheim@host/runs", "start it again.")
        assert "geheim" not in note_of(run)


@pytest.mark.usefixtures("store")
def test_the_table_of_a_parent_has_intervals_where_its_children_are_means_over_seeds() -> None:
    with tracking.open_run("train", "mlp", name="parent") as parent:
        assert table_of_children(parent) == ""
        mean = {"val/loss": 2.0, "val/loss_lo": 1.5, "val/loss_hi": 2.5}
        for name, values in (("one", {"test/accuracy": 0.5}), ("mean", mean)):
            with tracking.open_run("train", "mlp", name=name, parent=parent) as child:
                child.metrics.log(values, 0)
        assert table_of_children(parent).replace("&emsp;", "").splitlines() == [
            "| run | test/accuracy | val/loss |",
            "| --- | --- | --- |",
            "| one | 0.5 |  |",
            "| mean |  | 2 (95 % 1.5 to 2.5) |",
        ]
