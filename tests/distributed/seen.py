"""What Sentry and OpenTelemetry would send from a process of these tests: a line of JSON each, in a file."""

import json
import os

import opentelemetry.trace
import sentry_sdk
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport


def write(path, **line):
    # One call for a line: several processes append.
    with open(path, "a") as file:
        file.write(json.dumps({"pid": os.getpid(), **line}) + "\n")


def lines_of(path):
    # Of what follows the last end of a line, a part may be missing yet.
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def context_of(context):
    return None if context is None else {"trace": context.trace_id, "span": context.span_id}


class Exporter(SpanExporter):
    def __init__(self, path):
        self.path = path

    def export(self, spans):
        for span in spans:
            write(
                self.path,
                kind="span",
                name=span.name,
                span_kind=span.kind.name,
                status=span.status.status_code.name,
                context=context_of(span.context),
                parent=context_of(span.parent),
                attributes=dict(span.attributes),
            )
        return SpanExportResult.SUCCESS


def watch_spans(path, *, instrumented):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Exporter(path)))
    opentelemetry.trace.set_tracer_provider(provider)
    if instrumented:
        CeleryInstrumentor().instrument()


def watch_errors(path):
    class File(Transport):
        def capture_envelope(self, envelope):
            for item in envelope.items:
                if item.type in ("event", "transaction"):
                    write(path, kind=item.type, item=item.payload.json)

    sentry_sdk.init(
        dsn="https://key@sentry.example/1",
        transport=File,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[LoggingIntegration(), DedupeIntegration(), CeleryIntegration()],
    )
