"""What may be another at every play, and what stands in the record instead of it: times, places, hosts and ids."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MASK = "<masked>"
ID = re.compile(r"\b[0-9a-f]{32}\b")
SHORT = 12  # characters of an id by which lines name a run
PATTERNS = (
    (re.compile(r"https?://[^\s\"']+"), "<link>"),
    (re.compile(r"\bm-[0-9a-f]{32}\b"), "<model>"),
    (re.compile(r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d[\w.:+]*"), "<time>"),
    (re.compile(r"\d[\d,]*(\.\d+)?(e[+-]?\d+)?(?= (ms|s|min|h|s/epoch)\b)"), "<n>"),
    (re.compile(r"\+timestamp\+\d+\+[0-9a-f-]{36}"), "+<time>"),  # MLflow's image series
    (re.compile(r"events\.out\.tfevents\.\S+"), "events.out.tfevents"),
)
# Durations and speeds by the last word of a metric's key, of a field of JSON, or of a column of CSV.
DURATIONS = re.compile(r"(^|[/_.])(seconds|duration|speed|tokens_per_second|examples_per_second|time)$")
# Digests of contents in which ids, places or times are; the contents themselves are recorded.
DIGESTS = frozenset({"digest", "config_digest", "analysis_digest"})
FIELDS = frozenset({"environment", "host", "pid"}) | {"started", "ended"}
TIMES = "timing.json"  # every number in it is a time
TAGS = re.compile(r"mlflow\.(source|user)|nfa\.(heartbeat|analysis_digest|step_digest)")
PARAMS = re.compile(r"nfa\.claim\.")


def masked(name: str) -> bool:
    """Whether a metric, a field or a column of this name is another at every play."""
    return name in FIELDS or DURATIONS.search(name) is not None


@dataclass(frozen=True)
class Masks:
    """Stable names of runs by their ids, and of folders by their paths."""

    runs: Mapping[str, str]
    folders: Mapping[str, str]

    def text(self, text: str) -> str:
        """Without what may be another at every play."""
        for path, name in self.folders.items():
            text = text.replace(path, name)
        for run_id, name in self.runs.items():
            text = text.replace(run_id, f"<{name}>").replace(run_id[:SHORT], f"<{name}>")
        for pattern, name in PATTERNS:
            text = pattern.sub(name, text)
        return text

    def content(self, content: Any) -> Any:
        """The same of all that JSON can hold."""
        if isinstance(content, Mapping):
            return {self.text(key): MASK if masked(key) else self.content(one) for key, one in content.items()}
        if isinstance(content, list):
            return [self.content(one) for one in content]
        return self.text(content) if isinstance(content, str) else content
