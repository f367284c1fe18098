"""Measurements for Prometheus. Names are part of the interface: dashboards and alerts are built on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

requests_seconds = Histogram(
    "rowlock_http_request_seconds", "Time to answer a request.", ["endpoint"], buckets=_SECONDS
)
responses = Counter("rowlock_http_responses", "Answers by status.", ["endpoint", "status"])
registrations = Counter("rowlock_registrations", "Registrations asked for, by outcome.", ["outcome"])
batch_size = Histogram(
    "rowlock_batch_size", "Requests committed together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
lock_wait_seconds = Histogram("rowlock_lock_wait_seconds", "Wait for the pools' locks.", buckets=_SECONDS)
queue_depth = Gauge("rowlock_queue_depth", "Requests waiting for a batch.", multiprocess_mode="livesum")
pool_connections = Gauge(
    "rowlock_pool_connections", "Database connections.", ["pool", "state"], multiprocess_mode="livesum"
)


class BatchGauge:
    """What the group commit tells of itself."""

    def batch(self, size: int) -> None:
        """Note that a batch of `size` requests was formed."""
        batch_size.observe(size)

    def waiting(self, count: int) -> None:
        """Note that `count` requests wait now."""
        queue_depth.set(count)


def exposition(environment: Mapping[str, str]) -> bytes:
    """Return all measurements as text, of all server processes where there are several."""
    if (folder := environment.get("PROMETHEUS_MULTIPROC_DIR")) is None:
        return generate_latest()
    _forget_the_dead(Path(folder))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """Drop what killed server processes said of their present state; what they counted stays."""
    for file in folder.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
