"""Spans of OpenTelemetry, from publish to provider; the extra `otel`.

A trace is W3C's `traceparent`, which travels with the event through the queues: publish → route → deliver →
send. We import nothing of OpenTelemetry before a `Tracing` is made, and do nothing of it without one.
No span has a name or an address: a recipient is a digest, as in the log.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from notifier.broker.entries import trace_of
from notifier.errors import ConfigurationError
from notifier.event import Event
from notifier.outcomes import words
from notifier.redaction import redacted, without_addresses

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.trace import Span, SpanKind, TracerProvider

_SCOPE: Final = "notifier"
_MISSING: Final = "needs the extra otel: pip install 'notifier-service[otel]'"
_PATIENCE: Final = 5.0  # seconds, for a collector, at the end


class Tracing:
    """Makes spans. An app service that has OpenTelemetry set up gives one to its publisher:
    `Publisher(url, tracing=Tracing())`."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """Without a provider it is the application's own. Raises ConfigurationError when OpenTelemetry is not
        installed."""
        try:
            from opentelemetry import trace  # noqa: PLC0415 - an extra, which costs nothing when it is off
            from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
                TraceContextTextMapPropagator,
            )
        except ImportError:
            raise ConfigurationError("NOTIFIER_TRACING", _MISSING) from None
        self._api = trace
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=provider)
        self._format = TraceContextTextMapPropagator()

    @contextmanager
    def publishing(self, events: Sequence[Event]) -> Iterator[list[str]]:
        """A span for each event while inside; yields their traceparents. The parent is what the event names,
        else the current span."""
        kind = self._api.SpanKind.PRODUCER
        spans = []
        for event in events:
            about = _about("events", event.id, event.type) | {"notifier.recipients": len(event.everyone())}
            spans.append(self._start("publish", kind, self._context(event.traceparent or ""), about))
        try:
            yield [self.traceparent(span) for span in spans]
        except Exception as error:
            for span in spans:
                self.failed(span, error)
            raise
        finally:
            for span in spans:
                span.end()

    def routing(
        self, queue: str, partition: int, event: tuple[str, str], recipient: str, parent: str
    ) -> Span:
        """The span of routing one event, which is id and type, for one recipient; to be ended."""
        about = _about(queue, *event) | _whose(recipient, partition)
        return self._start("route", self._api.SpanKind.CONSUMER, self._context(parent), about)

    @contextmanager
    def delivering(self, queue: str, message: Any, partition: int, delivery_id: str) -> Iterator[Span]:
        """The span of one attempt, current while inside."""
        entry = message.entry
        about = {
            **_about(queue, entry.id.decode(errors="replace"), entry.type.decode(errors="replace")),
            **_whose(entry.recipient.decode(errors="replace"), partition),
            "notifier.delivery.id": delivery_id,
            "notifier.attempt": message.attempts + 1,
        }
        parent = self._context(trace_of(message.fields))
        with self._tracer.start_as_current_span(
            f"deliver {queue}", kind=self._api.SpanKind.CONSUMER, context=parent, attributes=about,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            yield span

    @contextmanager
    def step(self, name: str, *, calls_out: bool) -> Iterator[None]:
        """A span below the current one. What is raised is its outcome."""
        kind = self._api.SpanKind.CLIENT if calls_out else self._api.SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            name, kind=kind, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                self.failed(span, error)
                raise

    def failed(self, span: Span, error: Exception) -> None:
        """Says so in a span, without the addresses that a provider's words may have."""
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(self._api.StatusCode.ERROR, without_addresses(words(error))[:200])

    def traceparent(self, span: Span) -> str:
        """What travels; empty when there is no trace, as without an SDK."""
        carrier: dict[str, str] = {}
        self._format.inject(carrier, self._api.set_span_in_context(span))
        return carrier.get("traceparent", "")

    def _context(self, traceparent: str) -> Context | None:
        """The parent that it names; None, for the current one, if it names none."""
        return self._format.extract({"traceparent": traceparent}) if traceparent else None

    def _start(
        self, name: str, kind: SpanKind, parent: Context | None, attributes: Mapping[str, Any]
    ) -> Span:
        return self._tracer.start_span(name, context=parent, kind=kind, attributes=attributes)


def _about(queue: str, event_id: str, event_type: str) -> dict[str, Any]:
    return {
        "messaging.system": "notifier",
        "messaging.destination.name": queue,
        "messaging.message.id": event_id,
        "notifier.event.type": event_type,
    }


def _whose(recipient: str, partition: int) -> dict[str, Any]:
    return {"notifier.recipient": redacted(recipient), "messaging.destination.partition.id": str(partition)}


@contextmanager
def exporting() -> Iterator[Tracing]:
    """Spans go to a collector in batches, by OTLP over HTTP; at the end of the block, what is left.

    Where to, and what else, is in the variables that OpenTelemetry defines, such as
    OTEL_EXPORTER_OTLP_ENDPOINT. Raises ConfigurationError.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider as Provider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("NOTIFIER_TRACING", _MISSING) from None

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    provider: SdkProvider = Provider(resource=Resource.create({} if named else {"service.name": _SCOPE}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield Tracing(provider)
    finally:
        _within(_PATIENCE, provider.shutdown)


def _within(seconds: float, action: Callable[[], None]) -> None:
    """A collector that is away must not hold up the end of a process."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
