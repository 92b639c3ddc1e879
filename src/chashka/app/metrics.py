"""What happened, in numbers, as Prometheus reads it. Labels are names of ours, never what was sent."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping

BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1200.0)
"""Upper ends in seconds of the histograms' classes."""
HELP = {
    "chashka_jobs": "jobs by state",
    "chashka_jobs_per_second": "jobs that ended in a second, lately",
    "chashka_job_seconds": "how long the last hundred finished jobs took to draw",
    "chashka_pictures": "pictures that are not deleted",
    "chashka_disk_free_bytes": "bytes free where pictures are kept",
    "chashka_policy_refusals_total": "requests that the policy refused",
    "chashka_draining": "1 while the server stops",
    "chashka_submitted_total": "jobs that were accepted, by kind",
    "chashka_sketches_total": "sketches that were drawn",
    "chashka_sent_bytes_total": "bytes of pictures that were sent",
    "chashka_uploaded_bytes_total": "bytes of pictures that were uploaded",
    "chashka_http_requests_total": "requests by route and status",
    "chashka_http_seconds": "how long answers took, streams of events too",
    "chashka_refusals_total": "requests that were refused, by code",
}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters and histograms by name and labels; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._classes: dict[str, dict[Labels, list[int]]] = defaultdict(dict)
        self._sums: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))

    def count(self, name: str, by: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[name][tuple(sorted(labels.items()))] += by

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Enter a duration into a histogram."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            classes = self._classes[name].setdefault(key, [0] * (len(BUCKETS) + 1))
            classes[next((at for at, end in enumerate(BUCKETS) if seconds <= end), len(BUCKETS))] += 1
            self._sums[name][key] += seconds

    def text(self, gauges: Mapping[str, Iterable[tuple[Mapping[str, str], float]]]) -> str:
        """Everything, with ``gauges`` (name → (labels, value)) as they are now."""
        lines: list[str] = []
        for name, rows in gauges.items():
            lines += _head(name, "counter" if name.endswith("_total") else "gauge")
            lines += [f"{name}{_labels(tuple(sorted(labels.items())))} {value:.15g}" for labels, value in rows]
        with self._lock:
            for name, values in self._counters.items():
                lines += _head(name, "counter")
                lines += [f"{name}{_labels(key)} {value:.15g}" for key, value in values.items()]
            for name, histograms in self._classes.items():
                lines += _head(name, "histogram")
                for key, classes in histograms.items():
                    lines += self._histogram(name, key, classes)
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str, key: Labels, classes: list[int]) -> list[str]:
        lines, below = [], 0
        for end, number in zip((*(f"{end:g}" for end in BUCKETS), "+Inf"), classes, strict=True):
            below += number
            lines.append(f"{name}_bucket{_labels((*key, ('le', end)))} {below}")
        return [*lines, f"{name}_sum{_labels(key)} {self._sums[name][key]:.6f}", f"{name}_count{_labels(key)} {below}"]


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {HELP[name]}", f"# TYPE {name} {kind}"]


def _labels(labels: Labels) -> str:
    """{name="value",…}, escaped as the format wants it."""
    pairs = [f'{name}="{_quoted(value)}"' for name, value in labels]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
