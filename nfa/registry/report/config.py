"""Parameters of a report."""

from dataclasses import dataclass

from nfa.errors import Refusal
from nfa.options import CheckedOptions, option
from nfa.registry.run_filters import is_filter


@dataclass(frozen=True)
class ReportConfig(CheckedOptions):
    """One self-contained page about stored runs: what was trained, what was seen, and how sure that is."""

    run_id: str = option(
        "latest",
        "runs on the page: ids or prefixes, comma-separated, of trainings, parents, analyses or studies; latest; or a "
        "filter string of MLflow's",
    )
    keys: str = option(
        "", "relations, metric keys or globs whose series are drawn, comma-separated; empty = the usual ones that fit"
    )
    output_dir: str = option("", "folder to copy the page to; empty = no copy")
    run_name: str = option("", "name of the report's run in MLflow; empty = named by what it reports")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_filter(self.run_id) and not all(part.strip() for part in self.run_id.split(",")):
            raise Refusal(f"run_id={self.run_id!r}", "run ids, comma-separated, latest, or a filter", "run_id=latest")
