"""k8s/overlays/dev, installed on this machine: what is rendered runs, delivers, is replaced, and stops."""

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
from tests.support.cluster import Cluster
from tests.support.ledger import Line, judge
from tests.support.manifests import overlay, workloads
from tests.support.pod import Pod
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
async def installed(folder: Path) -> AsyncIterator[Installed]:
    service = Installed()
    async with MailboxServer(on_mail=service.take) as mailbox:
        stand_ins: Mapping[str, Mapping[str, int]] = {
            "axllent/mailpit": {"smtp": mailbox.port, "http": mailbox.port}
        }
        async with (
            Cluster(overlay("dev"), folder, SECRET, stand_ins=stand_ins) as cluster,
            httpx.AsyncClient(base_url=cluster.url("notifier-api"), timeout=20, trust_env=False) as client,
        ):
            service.cluster, service.client = cluster, client
            yield service


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_what_is_rendered_runs_delivers_is_replaced_and_stops(tmp_path: Path) -> None:
    async with installed(tmp_path) as service:
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
