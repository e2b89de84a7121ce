"""The settings of telemetry. They stand here so that they can be read without importing what they turn on."""

from __future__ import annotations

import importlib.util
from typing import Any

from ..errors import NotConfigured
from ..settings import Setting
from ..validate import flag, or_none, whole


def _metrics(name: str, value: Any) -> Any:
    if value not in (None, "prometheus"):
        raise ValueError(f'{name} must be None or "prometheus", not {value!r}.')
    if value is not None and importlib.util.find_spec("prometheus_client") is None:
        raise NotConfigured(f"{name} needs a package: pip install 'flask-asok[prometheus]'.")
    return value


def _port(name: str, value: Any) -> Any:
    if whole(1)(name, value) > 65_535:
        raise ValueError(f"{name} must be a port, 65535 or less, not {value!r}.")
    return value


SETTINGS = (
    Setting(
        "ASOK_METRICS", None, _metrics,
        '"prometheus": count and time the tasks, for the registry that `prometheus_client` exposes; needs the extra '
        "`prometheus`. None: nothing is measured.",
    ),
    Setting(
        "ASOK_METRICS_PORT", None, or_none(_port),
        "The port on which `flask asok worker` of a distributed backend serves the metrics of its processes, from "
        "PROMETHEUS_MULTIPROC_DIR. A worker on threads serves none, and says so.",
    ),
    Setting(
        "ASOK_TRACE_LINKS", False, flag,
        "OpenTelemetry: every attempt is a trace of its own, with a link to the caller's span. By default the first "
        "attempt of a task without a delay is a child of that span.",
    ),
    Setting(
        "ASOK_SENTRY_SPANS", True, flag,
        "Where Sentry traces: a span for each queued task, and a transaction for each attempt.",
    ),
)  # fmt: skip
