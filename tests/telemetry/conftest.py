"""Sentry with a transport that sends nothing, and OpenTelemetry with an exporter that keeps the spans."""

import logging

import opentelemetry.trace
import pytest
import sentry_sdk
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport


class Sent:
    """What was sent to Sentry: events of errors and messages, and transactions."""

    def __init__(self):
        self.items = []

    @property
    def events(self):
        return [item for kind, item in self.items if kind == "event"]

    @property
    def transactions(self):
        return [item for kind, item in self.items if kind == "transaction"]


@pytest.fixture
def sentry():
    """Begin with Sentry, with its options; return what it sends."""
    scopes = sentry_sdk.get_global_scope()

    def begin(**options):
        sent = Sent()

        class Kept(Transport):
            def capture_envelope(self, envelope):
                sent.items += [(item.type, item.payload.json) for item in envelope.items]

        integrations = [LoggingIntegration(**options.pop("logging", {})), FlaskIntegration(), DedupeIntegration()]
        sentry_sdk.init(
            dsn="https://key@sentry.example/1",
            transport=Kept,
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=integrations,
            **options,
        )
        return sent

    with sentry_sdk.isolation_scope():
        yield begin
        # Its threads wake up for seconds after the test, beside tests that patch what all threads use.
        sentry_sdk.get_client().close()
    scopes.set_client(None)


@pytest.fixture
def spans(monkeypatch):
    """The spans that OpenTelemetry has exported, by their names."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # Which can be set once only, by the public function.
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", provider)
    return exporter.get_finished_spans


@pytest.fixture(autouse=True)
def _no_lines():
    """Keep the lines of failing tasks out of the output; the handlers of tests hear them."""
    handler = logging.NullHandler()
    logging.getLogger("asok").addHandler(handler)
    yield
    logging.getLogger("asok").removeHandler(handler)
