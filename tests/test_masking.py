"""No password in any writing stays in a masked text, and everything else does."""

import html
import io
import json
import logging
import re
import shlex
import sys
import urllib.parse
from collections.abc import Callable

import markupsafe
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs

from nfa import masking
from nfa.console import stage
from nfa.errors import DivergedError, NfaError, Refusal
from nfa.masking import carries_password, masked, masked_values, tellable
from nfa.registry.sweeps.config import TuneConfig

WRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "repr": repr,
    "ascii": ascii,
    "bytes": lambda text: repr(text.encode()),
    "JSON": json.dumps,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "HTML": html.escape,
    "HTML as templates write it": lambda text: str(markupsafe.escape(text)),
    "shell": shlex.quote,
    "percent": lambda text: urllib.parse.quote(text, safe=""),
    "percent but for slashes": urllib.parse.quote,
    "percent in small letters": lambda text: re.sub("%..", lambda found: found[0].lower(), urllib.parse.quote(text)),
    "percent twice": lambda text: urllib.parse.quote(urllib.parse.quote(text, safe=""), safe=""),
    "form": urllib.parse.quote_plus,
    "SQL": lambda text: "'" + text.replace("'", "''") + "'",
    "CSV": lambda text: '"' + text.replace('"', '""') + '"',
}
# Each has one part of letters and digits that no writing changes.
AWKWARD = {
    "@": ("p@ssword7", "ssword7"),
    "/ and :": ("s/r:covert7", "covert7"),
    "quotes": ("it's\"quoted7", "quoted7"),
    "unicode": ("grün🙂sieben7", "sieben7"),
    "backslash": ("a\\backslash7", "backslash7"),
    "space and signs": ("a b+c%d&equals=f", "equals"),
    "only signs but one": ("#?;<sevens>", "sevens"),
}


@pytest.fixture(autouse=True)
def _nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_typed", set())


@pytest.mark.parametrize("writing", WRITINGS)
@pytest.mark.parametrize("kind", AWKWARD)
def test_a_password_of_the_environment_is_masked_in_any_writing(
    kind: str, writing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    password, part = AWKWARD[kind]
    monkeypatch.setenv("PGPASSWORD", password)
    text = WRITINGS[writing](password)
    said = masked(f"first {text}, then\\n{text} last")
    assert part in text
    assert part not in said
    assert said.startswith("first ")
    assert said.endswith(" last")
    assert said.count("***") == 2


@settings(max_examples=60)
@given(
    st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="*"), min_size=6, max_size=16),
    st.sampled_from(sorted(WRITINGS)),
    st.booleans(),
)
def test_an_address_shows_user_host_and_database_but_nothing_of_its_password(
    password: str, writing: str, encoded: bool
) -> None:
    assume(encoded or not re.match(r"\d+[/?#]", password))  # read as a port

    def written(typed: str) -> str:
        return WRITINGS[writing](f"postgresql+psycopg://someone:{typed}@127.0.0.1:5432/studies")

    typed = urllib.parse.quote(password, safe="") if encoded else password
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "_typed", set())
        masking.learn(f"postgresql+psycopg://someone:{typed}@127.0.0.1:5432/studies")
        said = masked(written(typed))
    # Which quotes are around a text, and whether, depends on what is in it.
    assert re.sub("['\"]", "", said) == re.sub("['\"]", "", written("XXX").replace("XXX", "***"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Error('lost http://u:p@s/s:w'\"x@h:1/db')", "Error('lost http://u:***@h:1/db')"),
        ('{"a":"mysql://u:p\'w@h/db","b":"x@y"}', '{"a":"mysql://u:***@h/db","b":"x@y"}'),
        ("(postgresql://u:pw@h/db) failed", "(postgresql://u:***@h/db) failed"),
        ("http://me:a/b#c@[::1]:80/x", "http://me:***@[::1]:80/x"),
        ("redis://:pw@h, mail me@there", "redis://:***@h, mail me@there"),
        ("postgresql://u@server:p'w@h/db?options=a@b", "postgresql://u@server:***@h/db?options=a@b"),
        (
            "postgresql://u@h/db?x=1&password=p%20w&sslpassword=q'r",
            "postgresql://u@h/db?x=1&password=***&sslpassword=***",
        ),
        ("host=h password='p \\'w' user=u", "host=h password=*** user=u"),
        ('{"user": "u", "password": "p w"}', '{"user": "u", "password": ***}'),
        ("PGPASSWORD=pw MLFLOW_TRACKING_TOKEN=tk python", "PGPASSWORD=*** MLFLOW_TRACKING_TOKEN=*** python"),
        ("{'Authorization': 'Basic dTpwdw=='}", "{'Authorization': 'Basic ***'}"),
    ],
)
def test_what_is_nowhere_known_is_masked_where_it_stands_for_a_password(text: str, said: str) -> None:
    assert masked(text) == said
    assert masked(said) == said


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/#/experiments/0/runs/1?workflowType=machine_learning, or me@there",
        "postgresql://me@host/studies with PGPASSWORD or ~/.pgpass",
        "models:/name@champion, lr=log:1e-5:1, 12:30, pad_token='<pad>'",
        "sqlite:////folder/mlflow.db",
        "the bearer of authorization is a secret",
    ],
)
def test_what_only_looks_like_it_stays(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://mlflow:mlflow@h/mlflow")  # the password is a public name
    assert masked(text) == text
    assert not carries_password(text)


def test_a_page_with_scripts_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:p@s/t@h/db")
    page = get_plotlyjs()
    assert masked(page) == page


def test_what_a_program_takes_for_user_and_host_in_a_password_with_signs_is_masked() -> None:
    masking.learn("http://user:hun/ter@7x@127.0.0.1:1")
    assert masked("'user:hun' is not a valid host") == "'user:***' is not a valid host"
    assert masked("failed to resolve host '7x@127.0.0.1'") == "failed to resolve host '***@127.0.0.1'"
    assert masked('could not resolve "hun"') == 'could not resolve "***"'
    assert masked("hun, or hunter 7x") == "hun, or hunter 7x"


def test_words_and_numbers_that_only_contain_a_password_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "123456")
    assert masked("123456: 0.123456, 1234567, a123456") == "***: 0.123456, 1234567, a123456"


def test_numbers_in_values_stay_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "123456")
    content = {"a": [123456, 0.5, None, True], "123456": ("123456", {"b": "x"})}
    assert masked_values(content) == {"a": [123456, 0.5, None, True], "***": ["***", {"b": "x"}]}


@pytest.mark.parametrize(
    ("text", "carries"),
    [
        ("postgresql://u:pw@h/db", True),
        ("--storage=postgresql://u:p w@h/db", True),
        ("--storage=u:pw@h/db", True),
        ("postgresql://u@h/db?password=x", True),
        ("host=h password=pw", True),
        ("it is hunter2 again", True),
        ("postgresql://u:***@h/db", False),
        ("postgresql://u@h/db", False),
        ("models:/n@c", False),
        ("a:b@c", False),
    ],
)
def test_what_carries_a_password_is_known(text: str, carries: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    assert carries_password(text) == carries


@pytest.mark.parametrize("make", [lambda text: Refusal(text, text, text), NfaError, DivergedError])
def test_errors_are_masked_when_they_are_made(make: Callable[[str], NfaError]) -> None:
    error = make("at postgresql://u:geheim@h/db")
    assert "geheim" not in f"{error} {error!r} {error.args}"
    assert "u:***@h/db" in str(error)


def test_an_error_is_the_cause_of_another_only_if_nothing_in_it_tells() -> None:
    def raised(text: str) -> Exception:
        try:
            try:
                raise OSError(text)
            except OSError as error:
                raise ValueError("below") from error
        except ValueError as error:
            return error

    harmless = raised("no disk")
    assert tellable(harmless) is harmless
    assert tellable(raised("postgresql://u:geheim@h/db")) is None


def test_a_password_in_a_config_is_told_by_nothing_that_comes_after(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Refusal) as told:
        TuneConfig(storage="me:geheim@host/studies")
    assert "storage=me:***@host/studies" in str(told.value)
    stage("notice", "geheim")
    assert capsys.readouterr().out == "    notice  ***\n"


def test_a_line_about_what_goes_on_is_masked_in_a_notebook_too(capsys: pytest.CaptureFixture[str]) -> None:
    stage("waiting", "for postgresql://u@h/db?password=geheim")
    assert capsys.readouterr().out == "   waiting  for postgresql://u@h/db?password=***\n"


def test_whatever_is_printed_is_masked_whoever_had_the_stream_before(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["tune", "--storage", "postgresql://u:geheim@h/db"])
    handler = logging.StreamHandler()
    masking.mask_process()
    masking.mask_process()
    print("it is geheim", ["geheim"], flush=True)
    handler.emit(logging.makeLogRecord({"msg": "postgresql://u:geheim@h/db"}))
    sys.stderr.writelines(["geheim\n", "secret\n"])
    assert sys.stdout.write("geheim") == len("geheim")
    assert out.getvalue() == "it is *** ['***']\n***"
    assert err.getvalue() == "postgresql://u:***@h/db\n***\nsecret\n"
