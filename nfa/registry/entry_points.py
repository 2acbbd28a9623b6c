"""All entry points by name: those of each model family, and the general ones."""

from dataclasses import replace
from functools import cache

from nfa.registry.families.entry_point import EntryPoint
from nfa.registry.families.registry import families

ANALYSES, SWEEPS, REPORT = "nfa.registry.analyses", "nfa.registry.sweeps", "nfa.registry.report"
GENERAL = {
    "analyze": EntryPoint(f"{ANALYSES}.config:AnalyzeConfig", f"{ANALYSES}.alignment:analyze"),
    "gradient_directions": EntryPoint(
        f"{ANALYSES}.config:GradientDirectionsConfig", f"{ANALYSES}.gradient_directions:gradient_directions"
    ),
    "gradient_flow": EntryPoint(f"{ANALYSES}.config:GradientFlowConfig", f"{ANALYSES}.gradient_flow:gradient_flow"),
    "tune": EntryPoint(
        f"{SWEEPS}.config:TuneConfig", f"{SWEEPS}.search:tune", check=f"{SWEEPS}.config:check_storage", extra="tune"
    ),
    "report": EntryPoint(f"{REPORT}.config:ReportConfig", f"{REPORT}.report:report"),
}


@cache
def entry_points() -> dict[str, EntryPoint]:
    """Return all entry points by name: those of the families first, then the general ones."""
    own = {name: replace(point, extra=one.extra) for one in families() for name, point in one.entry_points.items()}
    return own | GENERAL
