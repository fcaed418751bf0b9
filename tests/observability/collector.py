"""A collector of OpenTelemetry: takes spans by OTLP over HTTP, as protobuf."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    """Ids are in hex; `parent` is empty for a root. `service` is who told it; `kind` is such as
    SPAN_KIND_CLIENT."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    failed: bool
    service: str
    process: str
    attributes: dict[str, Any] = field(default_factory=dict)


class Collector:
    """What has come, in the order in which it came."""

    def __init__(self) -> None:
        self.spans: list[CollectedSpan] = []
        self.raw = b""
        self.port = 0

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        self.raw += body
        spans = []
        for group in request.resource_spans:
            about = _plain(group.resource.attributes)
            spans += [_span(one, about) for scope in group.scope_spans for one in scope.spans]
        self.spans += spans  # at once: a test looks meanwhile

    def of(self, trace: str) -> dict[str, list[CollectedSpan]]:
        """The spans of a trace by their names."""
        found: dict[str, list[CollectedSpan]] = {}
        for span in self.spans:
            if span.trace == trace:
                found.setdefault(span.name, []).append(span)
        return found


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def _span(one: Any, about: dict[str, Any]) -> CollectedSpan:
    kind = one.DESCRIPTOR.enum_types_by_name["SpanKind"].values_by_number[one.kind].name
    return CollectedSpan(
        one.name, one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex(), kind, one.status.code == 2,
        about["service.name"], about.get("service.instance.id", ""), _plain(one.attributes),
    )  # fmt: skip


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces", self.path
            assert self.headers["Content-Type"] == "application/x-protobuf"
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
