"""One trace from publish to provider, across processes and queues, on a real broker and to a collector."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from notifier import InvalidEvent, Publisher
from notifier.broker.entries import DeliveryEntry, trace_of, values
from notifier.channel import Delivery
from notifier.event import parse_event
from notifier.keys import Keys
from notifier.local.broker import free_port
from notifier.redaction import redacted
from notifier.tracing import Tracing
from tests.docs.blocks import ROOT
from tests.observability.collector import CollectedSpan, Collector, collecting
from tests.observability.installation import KEY, Installation
from tests.support.topologies import wait

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
KEYS = Keys("ntf", 4)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def traced(collector: Collector) -> dict[str, str]:
    return {
        "NOTIFIER_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "NO_PROXY": "127.0.0.1",
    }


def post(port: int, body: Any, **headers: str) -> None:
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/events",
        content=json.dumps(body),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers},
        timeout=20,
        trust_env=False,
    )
    assert answer.status_code == 202, answer.text


def only(spans: dict[str, list[CollectedSpan]], name: str) -> CollectedSpan:
    [span] = spans[name]
    return span


LIKE = {"id": "e1", "type": "like", "recipient": "ada@example.com", "data": {"text": "a secret"}}


@pytest.mark.slow
def test_one_trace_goes_through_three_processes(installation: Installation, collector: Collector) -> None:
    api = installation.start("api", **traced(collector))
    installation.start("worker", "router", **traced(collector), OTEL_SERVICE_NAME="notifier-router")
    installation.start("worker", "post", **traced(collector))
    post(api.port, LIKE, traceparent=TRACEPARENT)
    names = {"publish", "route", "deliver post", "render post", "send post"}
    wait(lambda: collector.of(TRACE).keys() == names, f"all spans: {collector.spans}")
    spans = collector.of(TRACE)
    publish, route, deliver = only(spans, "publish"), only(spans, "route"), only(spans, "deliver post")
    assert publish.parent == PARENT
    assert route.parent == publish.id
    assert deliver.parent == route.id
    assert only(spans, "render post").parent == only(spans, "send post").parent == deliver.id
    kinds = [
        span.kind.removeprefix("SPAN_KIND_") for span in (publish, route, deliver, only(spans, "send post"))
    ]
    assert kinds == ["PRODUCER", "CONSUMER", "CONSUMER", "CLIENT"]
    assert (publish.service, route.service, deliver.service) == ("notifier", "notifier-router", "notifier")
    assert not any(span.failed for span in collector.spans)
    delivery = Delivery.of("post", event_id="e1", event_type="like", to="ada@example.com", key="letterbox")
    assert deliver.attributes == {
        "messaging.system": "notifier",
        "messaging.destination.name": "post",
        "messaging.destination.partition.id": str(KEYS.partition_of("ada@example.com")),
        "messaging.message.id": "e1",
        "notifier.event.type": "like",
        "notifier.recipient": redacted("ada@example.com"),
        "notifier.delivery.id": delivery.id,
        "notifier.attempt": 1,
        "notifier.outcome": "delivered",
    }
    assert b"ada@" not in collector.raw
    assert b"a secret" not in collector.raw


@pytest.mark.slow
def test_each_attempt_is_a_span_of_the_same_trace(installation: Installation, collector: Collector) -> None:
    settings = {"NOTIFIER_RETRY_BASE": "10ms", "NOTIFIER_RETRY_ATTEMPTS": "2", "NOTIFIER_DLQ_DELAY": "50ms"}
    installation.start("worker", "all", **traced(collector), **settings)
    installation.begin("busy")
    with Publisher(installation.url) as publisher:
        publisher.publish(LIKE | {"traceparent": TRACEPARENT})
    wait(lambda: collector.of(TRACE).get("deliver post:dlq"), f"its second try: {collector.spans}")
    spans = collector.of(TRACE)
    attempts = [*spans["deliver post"], *spans["deliver post:dlq"]]
    assert [span.attributes["notifier.attempt"] for span in attempts] == [1, 2, 3]
    assert {span.parent for span in attempts} == {only(spans, "route").id}
    assert all(span.failed and span.attributes["error.type"] == "TransientFailure" for span in attempts)
    assert len({span.attributes["notifier.delivery.id"] for span in attempts}) == 1


@pytest.mark.slow
def test_a_process_without_tracing_hands_the_trace_on(
    installation: Installation, collector: Collector
) -> None:
    api = installation.start("api")
    installation.start("worker", "router")
    installation.start("worker", "post", **traced(collector))
    cloud = {
        "specversion": "1.0", "id": "c1", "source": "/tests", "type": "like", "subject": "ada",
        "data": {"text": "hello"}, "traceparent": TRACEPARENT,
    }  # fmt: skip
    post(api.port, cloud, **{"Content-Type": "application/cloudevents+json"})
    wait(lambda: collector.of(TRACE).keys() >= {"deliver post", "send post"}, f"its spans: {collector.spans}")
    assert only(collector.of(TRACE), "deliver post").parent == PARENT
    other = TRACE[::-1]
    post(api.port, cloud | {"id": "c2"}, **{
        "Content-Type": "application/cloudevents+json", "traceparent": f"00-{other}-{PARENT}-01",
    })  # fmt: skip
    post(api.port, LIKE, traceparent=f"00-{other}-{PARENT}-01")
    post(api.port, LIKE | {"id": "e2"}, traceparent="no traceparent at all")
    installation.until(lambda seen: seen.total("notifier_delivery_seconds_count") == 4, "all are delivered")
    wait(lambda: len(collector.of(TRACE).get("deliver post", ())) == 2, "what an event says counts")
    wait(lambda: len(collector.of(other).get("deliver post", ())) == 1, "else what the request says")
    wait(
        lambda: len([s for s in collector.spans if s.name == "deliver post" and not s.parent]) == 1, "a root"
    )


@pytest.mark.slow
def test_a_scheduled_event_keeps_its_trace(installation: Installation, collector: Collector) -> None:
    installation.start("worker", "all", **traced(collector))
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    with Publisher(installation.url) as publisher:
        publisher.publish(LIKE | {"traceparent": TRACEPARENT, "deliver_at": soon})
    wait(lambda: "send post" in collector.of(TRACE), f"its spans: {collector.spans}")


@pytest.mark.slow
def test_a_collector_that_is_away_holds_nothing_up(installation: Installation) -> None:
    away = {"NOTIFIER_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    worker = installation.start("worker", "all", **away, OTEL_BSP_SCHEDULE_DELAY="50")
    installation.publish(20)
    installation.until(lambda seen: seen.total("notifier_delivery_seconds_count") == 20, "all are delivered")
    began = time.monotonic()
    worker.stop()
    assert worker.process.returncode == 0
    assert time.monotonic() - began < 10


def test_a_publisher_takes_part_in_the_trace_of_its_app(redis_url: str) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("app")
    with Publisher(redis_url, partitions=4, tracing=Tracing(provider)) as publisher:
        with tracer.start_as_current_span("an order is placed") as mine:
            publisher.publish_many([LIKE | {"id": f"e{n}", "recipient": f"u{n}"} for n in range(3)])
        with pytest.raises(InvalidEvent):
            publisher.publish({"type": "like"})
    spans = [span for span in exporter.get_finished_spans() if span.name == "publish"]
    assert {span.parent.span_id for span in spans if span.parent} == {mine.get_span_context().span_id}
    sent = {f"{span.context.trace_id:032x}-{span.context.span_id:016x}" for span in spans if span.context}
    with redis.Redis.from_url(redis_url) as client:
        entries = [fields for p in range(4) for _, fields in client.xrange(KEYS.queue("events", p))]
    assert len(entries) == 3
    assert {fields[b"trace"].decode()[3:-3] for fields in entries} == sent


def test_without_a_trace_an_entry_is_what_it_was(redis_url: str) -> None:
    with Publisher(redis_url, partitions=4) as publisher:
        publisher.publish_many([LIKE, LIKE | {"id": "e2", "traceparent": TRACEPARENT}])
    with redis.Redis.from_url(redis_url) as client:
        [[_, plain], [_, with_trace]] = client.xrange(
            KEYS.queue("events", KEYS.partition_of("ada@example.com"))
        )
    assert list(plain) == [b"v", b"to", b"event"]
    assert list(with_trace) == [b"v", b"to", b"event", b"trace"]
    assert b"traceparent" not in with_trace[b"event"]


def test_an_entry_with_a_trace_or_another_field_reads_as_one_without() -> None:
    head = b"1\ne1\nlike\nu1\nu1\ninbox\n\n1769860800000\n"
    fields = [b"head", head, b"event", b"{}"]
    plain = DeliveryEntry.of(fields)
    assert DeliveryEntry.of([*fields, b"trace", TRACEPARENT.encode()]) == plain
    assert DeliveryEntry.of([*fields, b"of a later version", b"x", b"trace", b"?"]) == plain
    event = [b"v", b"1", b"to", b"u1", b"event", b"{}"]
    names = (b"v", b"to", b"event")
    assert list(values([*event, b"trace", TRACEPARENT.encode()], names)) == list(values(event, names))


@pytest.mark.parametrize(
    "wrong", ["", "x", TRACEPARENT.upper(), TRACEPARENT + "\n", "01" + TRACEPARENT[2:], TRACEPARENT + "-00"]
)
def test_what_is_no_traceparent_does_not_travel(wrong: str) -> None:
    assert trace_of([b"v", b"1", b"trace", wrong.encode()]) == ""
    with pytest.raises(InvalidEvent, match="traceparent: is not a traceparent"):
        parse_event(LIKE | {"traceparent": wrong})


def test_nothing_is_exported_and_no_thread_started_while_it_is_off() -> None:
    # redis-py imports the API and the SDK, where it finds them.
    code = (
        "import sys, threading, notifier.bootstrap, notifier.api.app, notifier.cli.worker, channels.email\n"
        "exporters = [name for name in sys.modules if name.startswith('opentelemetry.exporter')]\n"
        "print(exporters, threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1\n"


def test_without_the_extra_the_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, "-m", "notifier.cli", "publish", "-"],
        cwd=ROOT, input="{}", capture_output=True, text=True, check=False,
        env={"NOTIFIER_TRACING": "true", "PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        done.stderr
        == "notifier: NOTIFIER_TRACING: needs the extra otel: pip install 'notifier-service[otel]'\n"
    )
