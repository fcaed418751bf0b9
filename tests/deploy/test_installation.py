"""The overlays, installed on this machine: what is rendered runs, delivers, is replaced, and stops."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from notifier.local.mailbox import Mail, MailboxServer
from tests.support.autoscaler import Autoscaler
from tests.support.certificates import write_certificate
from tests.support.cluster import Cluster
from tests.support.ledger import Line, judge
from tests.support.manifests import of_kind, overlay, pod_labels, ports, selects, workloads
from tests.support.pod import Pod
from tests.support.topologies import Tls, binary_of, standalone
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="takes all of 127.0.0.0/8 as this machine")

PUBLISH, RECIPIENTS = "p" * 32, "r" * 32
SECRET = {
    "VALKEY_PASSWORD": "v" * 32,
    "NOTIFIER_API_KEYS": f"publish:{PUBLISH},recipients:{RECIPIENTS}",
    "NOTIFIER_TOKEN_KEYS": "hs256:" + base64.b64encode(bytes(range(32))).decode(),
    "NOTIFIER_VAPID_PRIVATE_KEY": base64.urlsafe_b64encode(bytes(range(1, 33))).rstrip(b"=").decode(),
}


def like(event_id: str, recipient: str) -> dict[str, Any]:
    data = {"photo_title": event_id, "url": "https://app.example.com/photos/1"}
    actor = {"id": "grace", "name": "Grace"}
    return {"id": event_id, "type": "like", "recipient": recipient, "actor": actor, "data": data}


class Installed:
    """The cluster, and what an app service and a user do with it."""

    cluster: Cluster
    client: httpx.AsyncClient

    def __init__(self) -> None:
        self.published: dict[str, list[str]] = {}
        self.mails: list[Line] = []

    async def call(self, method: str, path: str, key: str, body: Any = None) -> Any:
        answer = await self.client.request(
            method, path, json=body, headers={"Authorization": f"Bearer {key}", "Connection": "close"}
        )
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    async def register(self, recipient: str) -> None:
        await self.call(
            "PUT", f"/v1/recipients/{recipient}", RECIPIENTS, {"email": f"{recipient}@example.com"}
        )

    async def publish(self, event_id: str, recipient: str) -> None:
        await self.call("POST", "/v1/events", PUBLISH, like(event_id, recipient))
        self.published.setdefault(f"{recipient}@example.com", []).append(event_id)

    async def inbox(self, recipient: str) -> list[str]:
        token = (await self.call("POST", f"/v1/recipients/{recipient}/tokens", RECIPIENTS, {}))["token"]
        found: list[str] = []
        after = ""
        while True:
            page = await self.call("GET", f"/v1/inbox?page_size=100{after}", token)
            texts = (f"{entry['title']} {entry['body']}" for entry in page["entries"])
            found += [event_id for text in texts for event_id in re.findall(r"\be\d+", text)]
            if not page["page_info"]["has_more"]:
                return found
            after = f"&after={page['page_info']['after']}"

    def take(self, mail: Mail) -> None:
        if found := re.search(r"\be\d+", mail.subject):
            self.mails.append(Line("sent", mail.to, found[0], 0, 0.0))

    async def delivered(self) -> None:
        wanted = sum(map(len, self.published.values()))
        await until(lambda: len(self.mails) >= wanted, deadline=30)
        verdict = judge(self.published, self.mails)
        assert (verdict.breaches, verdict.duplicates) == ([], 0)
        for address, ids in self.published.items():
            recipient = address.partition("@")[0]

            async def has_all(recipient: str = recipient, ids: list[str] = ids) -> bool:
                return sorted(await self.inbox(recipient)) == sorted(ids)

            await until(has_all)


@asynccontextmanager
async def installed(
    name: str, folder: Path, files: Mapping[str, Mapping[str, str]] | None = None, **more: str
) -> AsyncIterator[Installed]:
    service = Installed()
    async with MailboxServer(on_mail=service.take) as mailbox:
        stand_ins = {"axllent/mailpit": {"smtp": mailbox.port, "http": mailbox.port}}
        secret = SECRET | {"NOTIFIER_SMTP_URL": f"{mailbox.url}?starttls=never"} | more
        async with (
            Cluster(overlay(name), folder, secret, files=files, stand_ins=stand_ins) as cluster,
            httpx.AsyncClient(base_url=cluster.url("notifier-api"), timeout=20, trust_env=False) as client,
        ):
            service.cluster, service.client = cluster, client
            yield service


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_what_is_rendered_runs_delivers_is_replaced_and_stops(tmp_path: Path) -> None:
    async with installed("dev", tmp_path) as service:
        cluster = service.cluster
        await cluster.apply()
        for recipient in ("u1", "u2"):
            await service.register(recipient)
            await service.publish(f"e{recipient[1:]}", recipient)
        await service.delivered()

        await roll_while_events_come(service, "notifier-email", "notifier-api")
        await budget_lets_one_go(service, "notifier-in-app")
        await broker_keeps_what_it_has(service)

        pods = list(cluster.pods)
        assert len(pods) == len(workloads(overlay("dev"))) + 1  # the budget's
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(cluster.stop(pod) for pod in pods if not is_broker(pod)))
        await asyncio.gather(*(cluster.stop(pod) for pod in pods if is_broker(pod)))
        for pod in pods:
            if pod.process:
                assert pod.code == 0, (pod.name, pod.code, pod.log)
                assert pod.took < pod.spec["terminationGracePeriodSeconds"]
        assert asyncio.get_running_loop().time() - began < 30


def is_broker(pod: Pod) -> bool:
    return pod.workload["kind"] == "StatefulSet"


async def roll_while_events_come(service: Installed, *names: str) -> None:
    """Nothing is lost, doubled or refused while pods are replaced, and there is always one that is ready."""
    before = {pod.name for pod in service.cluster.pods}
    stop = asyncio.Event()

    async def publish() -> None:
        number = 100
        while not stop.is_set():
            await service.publish(f"e{number}", f"u{1 + number % 2}")
            number += 1
            await asyncio.sleep(0.02)

    publishing = asyncio.create_task(publish())
    for name in names:
        await service.cluster.roll(name)
        assert service.cluster.least[name] == 1, name
    stop.set()
    await publishing
    assert len({pod.name for pod in service.cluster.pods} - before) == len(names)
    await service.delivered()


async def budget_lets_one_go(service: Installed, name: str) -> None:
    cluster = service.cluster
    await cluster.scale(name, 2)
    await cluster.is_complete(name)
    first, second = cluster.of(name)
    assert cluster.may_evict(first)
    going = asyncio.create_task(cluster.stop(first))
    await until(lambda: first.is_ending)
    assert not cluster.may_evict(second)
    await going
    await cluster.scale(name, 2)
    await cluster.is_complete(name)
    assert cluster.may_evict(second)


async def broker_keeps_what_it_has(service: Installed) -> None:
    """Killed with events in it, it comes back with them; nobody else is started again."""
    cluster = service.cluster
    await cluster.scale("notifier-email", 0)
    await service.publish("e9000", "u1")
    [broker] = cluster.of("valkey")
    assert broker.process
    broker.process.kill()
    await until(lambda: broker.restarts == 1 and broker.is_ready, deadline=30)
    await cluster.scale("notifier-email", 1)
    await service.delivered()
    assert {pod.name for pod in cluster.pods if pod.restarts} == {broker.name}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_production_works_over_tls_with_a_password_and_is_seen(tmp_path: Path) -> None:
    """As the user with few rights that the page about production makes, by a certificate from a Secret."""
    tls = Tls(write_certificate(tmp_path / "ca.crt"))
    with standalone(tmp_path / "redis", binary_of("redis-7.0"), tls=tls) as topology:
        server = topology.server
        server.ask("ACL", "SETUSER", "notifier", "on", ">secret", "~{ntf:*", "~ntf:*", "&{ntf:*",
                   "+@all", "-@dangerous", "+role", "+info")  # fmt: skip
        server.lock("of-the-operator")
        url = (
            f"rediss://notifier:secret@127.0.0.1:{server.service_port}/0?ssl_ca_certs=/etc/notifier/ca/ca.crt"
        )
        files = {"notifier-ca": {"ca.crt": tls.file.read_text()}}
        async with installed("production", tmp_path, files, NOTIFIER_REDIS_URL=url) as service:
            cluster = service.cluster
            await cluster.apply()
            await service.register("u1")
            await service.publish("e1", "u1")
            await service.delivered()
            await is_seen(service)
            await asyncio.gather(*(cluster.stop(pod) for pod in list(cluster.pods)))


async def is_seen(service: Installed) -> None:
    """What the ScaledObjects and the monitors ask for is answered."""
    docs = overlay("production")
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        for scaled in of_kind(docs, "ScaledObject"):
            scaler = Autoscaler(scaled, service.cluster.resolve, speed=1)

            async def is_at_rest(scaler: Autoscaler = scaler) -> bool:
                return await scaler.signals(client) == [0, 0]

            await until(is_at_rest)  # a worker commits a moment after what it sent has arrived
        for kind, endpoints in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
            [monitor] = of_kind(docs, kind)
            [endpoint] = monitor["spec"][endpoints]
            pods = [
                pod
                for pod in service.cluster.pods
                if selects(monitor["spec"]["selector"], pod_labels(pod.workload))
            ]
            assert pods
            for pod in pods:
                port = ports(pod.workload)[endpoint["port"]]
                answer = await client.get(f"http://{pod.ip}:{port}{endpoint['path']}")
                assert (answer.status_code, "notifier_" in answer.text) == (200, True), pod.name
