"""The entry point `report`: one self-contained page about stored runs."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from nfa import __version__
from nfa.console import bar, stage
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.analyses.output_folders import output_folder
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end, describe_start
from nfa.registry.report.agreement import agreeing
from nfa.registry.report.config import ReportConfig
from nfa.registry.report.notices import conventions, notices
from nfa.registry.report.page import page_html
from nfa.registry.report.page_data import Page, PageWords
from nfa.registry.report.pictures import picture_series
from nfa.registry.report.reported import Reported, Run, check, find, is_training
from nfa.registry.report.series import ReadSeries, page_numbers, read
from nfa.registry.report.shown_keys import ShownKeys, choose
from nfa.registry.report.stored_reports import stored_reports
from nfa.registry.report.verdicts import verdicts
from nfa.registry.report.words import parameter_tables, trained
from nfa.registry.results.variants import WORKLOAD
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.config_json import run_config, write_config

PAGE = "report.html"
MOST_IDS = 150  # that a tag holds; config.json has all
MOST_LINKED = 100  # runs that get a link to the page
MOST_COMPARING = 12  # parents and comparisons whose pictures are on the page
MOST_RESULTS = 12  # sentences in the description
SPACE = 64 * 2**20


def report(config: ReportConfig) -> None:
    """Make the page of `config.run_id` in a run of its own, and link it from the runs that it is about."""
    reported = agreeing(find(config.run_id))
    check(reported, config.run_id)
    shown = choose(reported, config.keys)
    folder = output_folder(config.output_dir)
    run = _opened(config, reported)
    with run:
        tracking.check_space(run.info, total=SPACE, largest=SPACE)
        run.log_params({**asdict(config), "run_id": config.run_id[:1000]})
        describe_start(run, run.info.info.run_name, "start it again.")
        write_config(run, _content(config, reported))
        page = _page(config, reported, shown, run)
        _store(run, page)
        _describe(config, run, page)
        _link(run, reported)
    if folder:
        tracking.copy_artifacts(run.run_id, folder, {PAGE: PAGE})
    stage("open", str(folder / PAGE) if folder else tracking.artifact_address(run.info, PAGE))
    stage("done", run.link)


def _opened(config: ReportConfig, reported: Reported) -> TrackedRun:
    """Open the run of the page, beside the runs that it is about and not below them."""
    stage("runs", _said(reported))
    ids = [run.info.run_id for run in reported.named]
    workloads = dict.fromkeys(one.tags[WORKLOAD] for one in reported.runs if is_training(one.run))
    name, otherwise = config.run_name, f"report of {_subject(reported)}"
    tags = {"nfa.source_run_ids": ",".join(ids[:MOST_IDS])}
    experiment = reported.named[0].info.experiment_id
    return tracking.open_run(
        "report", ",".join(workloads), name=name, otherwise=otherwise, tags=tags, experiment=experiment
    )


def _subject(reported: Reported) -> str:
    return str(reported.named[0].info.run_name) if len(reported.named) == 1 else counted(len(reported.named), "run")


def _said(reported: Reported) -> str:
    analyses = sum(1 for _ in reported.analyses)
    parts = counted(len(reported.groups), "group"), counted(analyses, "analysis", "analyses")
    return f"{counted(len(reported.runs), 'run')} in {', '.join(parts)}: {_subject(reported)}"


def _content(config: ReportConfig, reported: Reported) -> dict[str, object]:
    """Return the content of config.json; its sources are complete, unlike the tag."""
    known = {"report": asdict(config), "sources": [run.info.run_id for run in reported.named]}
    return run_config("report", known)


def _page(config: ReportConfig, reported: Reported, shown: ShownKeys, run: TrackedRun) -> Page:
    """Read what the page shows, and return it."""
    stage("reading", f"{counted(len(shown.keys), 'key')} of {counted(len(reported.keys), 'key')}")
    series = read(reported, shown)
    shown = shown.without_curves(series.most(shown.names)).within_limits_of(series.values(shown.names))
    comparing = dict(enumerate([*reported.parents, *reported.comparisons][:MOST_COMPARING], len(reported.runs)))
    pictures, beside = picture_series([*enumerate(one.measured.holders for one in reported.runs)], comparing)
    numbers = page_numbers(reported, shown, series, pictures)
    stage("words", "parameters, verdicts and stored reports")
    words = _words(config, reported, run, series, [*shown.left_out, *beside])
    return {"words": words, "numbers": numbers}


def _words(
    config: ReportConfig, reported: Reported, run: TrackedRun, series: ReadSeries, left_out: Sequence[str]
) -> PageWords:
    differences, common = parameter_tables(reported)
    stored = stored_reports(reported)
    return {
        "title": _subject(reported),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "command": _command(config),
        "report_run": run.run_id,
        "store": tracking.told_address(),
        "trained": trained(reported),
        "differences": differences,
        "common": common,
        "verdicts": verdicts(reported),
        "texts": stored.texts,
        "tables": stored.tables,
        "conventions": conventions(reported),
        "notices": notices(reported, series),
        "left_out": [*left_out, *stored.left_out, *_unlinked(reported)],
    }


def _command(config: ReportConfig) -> str:
    """Return the command that makes the page again."""
    typed = {name: str(value) for name, value in asdict(config).items() if value and name != "run_name"}
    return command("report", **typed)


def _store(run: TrackedRun, page: Page) -> None:
    html = page_html(page)
    tracking.put(run.info, PAGE, lambda file: _write(file, html))
    stage("page", f"{PAGE}, {len(html) / 2**20:.1f} MB")


def _write(file: Path, html: str) -> None:
    file.write_text(html, encoding="utf-8")


def _describe(config: ReportConfig, run: TrackedRun, page: Page) -> None:
    said = [line["text"] for _, lines in page["words"]["verdicts"] for line in lines]
    more = [f"and {len(said) - MOST_RESULTS:,} sentences more on the page"] if len(said) > MOST_RESULTS else []
    what = f"Report of {page['words']['title']}: the page is the artifact {PAGE}."
    describe_end(run, what, results=[*said[:MOST_RESULTS], *more], after=_command(config))


def _linked(reported: Reported) -> list[Run]:
    """Return the runs that get a link: the named ones, the parents, and those whose values are shown."""
    runs = [*reported.named, *reported.parents, *(one.run for one in reported.runs)]
    return [*{run.info.run_id: run for run in runs if not tracking.is_report(run)}.values()]


def _unlinked(reported: Reported) -> list[str]:
    """Return which runs have no link to the page, and why."""
    runs = _linked(reported)
    busy = [run for run in runs[:MOST_LINKED] if tracking.is_running(run)]
    said = [f"{counted(len(busy), 'run')} still running: without a link to this page."] if busy else []
    many = f"Links to this page from {len(runs) - MOST_LINKED:,} of its runs; the first {MOST_LINKED} have one."
    return [*said, *([many] if len(runs) > MOST_LINKED else [])]


def _link(run: TrackedRun, reported: Reported) -> None:
    """Link the page from the runs that it is about; a run that a process is working on is left alone."""
    for one in bar(_linked(reported)[:MOST_LINKED], "links", unit="run"):
        if not tracking.is_running(one):
            tracking.link_report(one.info.run_id, run.info)
