"""`notifier worker --port`: what supervisors and Prometheus ask a worker."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from notifier.local.broker import EmbeddedBroker

CHANNEL = """
import os, time
from notifier.channel import Address, Sent

class Slow:
    name, blocks = "slow", ()

    def addresses(self, recipient):
        return [Address("a", "a")]

    async def open(self): ...
    async def close(self): ...

    async def send(self, delivery, content):
        import asyncio
        print("sending", flush=True)
        while not os.path.exists(os.environ["GATE"]):
            await asyncio.sleep(0.01)
        return Sent()

def open_channel(environ):
    return Slow()
"""


def port_of(worker: Any) -> int:
    worker.wait_for_log("worker_port_opened")
    [line] = [line for line in worker.log.read_text().splitlines() if "worker_port_opened" in line]
    return int(json.loads(line)["port"])


def asking(worker: Any) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port_of(worker)}", timeout=20, trust_env=False)


@pytest.mark.slow
def test_it_lives_is_ready_and_tells_its_metrics(start: Any, waiting: Any) -> None:
    worker = start("worker", "router", "--port", "0", log_format="json", metrics_open="true")
    with asking(worker) as client:
        waiting(lambda: client.get("/readyz").status_code == 200, "it is ready")
        assert client.get("/livez").json() == {"status": "ok"}
        for path in ("/livez", "/readyz"):
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"")
        assert "notifier_routed_total" in client.get("/metrics").text
        assert client.get("/v1/queues").status_code == 404
        assert client.post("/livez").status_code == 405
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0


@pytest.mark.slow
def test_while_it_drains_it_lives_and_is_not_ready(
    start: Any, cli: Any, tmp_path: Path, waiting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_channel.py").write_text(CHANNEL)
    (tmp_path / "types" / "like").mkdir(parents=True)
    (tmp_path / "types" / "like" / "event.toml").write_text("")
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "e.jsonl").write_text(json.dumps({"type": "like", "recipient": "u1"}))
    settings = {"channels": "slow_channel:open_channel", "templates": str(tmp_path / "types")}
    worker = start("worker", "all", "--port", "0", log_format="json", **settings)
    with asking(worker) as client:
        assert cli("publish", tmp_path / "e.jsonl", **settings).code == 0
        assert worker.stdout.readline() == "sending\n"
        worker.send_signal(signal.SIGTERM)
        waiting(lambda: client.get("/readyz").status_code == 503, "it is not ready any more")
        assert client.get("/livez").status_code == 200
        (tmp_path / "gate").touch()
        assert worker.wait(20) == 0


@pytest.mark.slow
def test_without_a_broker_it_lives_and_is_not_ready(start: Any, tmp_path: Path, waiting: Any) -> None:
    with EmbeddedBroker(tmp_path / "broker", persistent=False) as broker:
        settings = {"redis_url": broker.url, "metrics_open": "true"}
        worker = start("worker", "router", "--port", "0", log_format="json", **settings)
        with asking(worker) as client:
            waiting(lambda: client.get("/readyz").status_code == 200, "it is ready")
            broker.kill()
            assert client.get("/readyz").status_code == 503
            assert client.get("/livez").status_code == 200
            assert "\nnotifier_broker_up 0.0\n" in client.get("/metrics").text


def test_a_port_in_use_is_named(cli: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = cli("worker", "router", "--port", port).failed(2)
    assert said == f"notifier: --port: 127.0.0.1:{port}: Address already in use"


@pytest.mark.slow
def test_its_metrics_take_a_key_of_the_operators(start: Any) -> None:
    keys = {"publish": "p" * 32, "operate": "o" * 32}
    given = ",".join(f"{scope}:{secret}" for scope, secret in keys.items())
    worker = start("worker", "router", "--port", "0", log_format="json", api_keys=given)
    with asking(worker) as client:

        def status(authorization: str | None) -> int:
            headers = {"Authorization": authorization} if authorization else {}
            return client.get("/metrics", headers=headers).status_code

        assert status(f"Bearer {keys['operate']}") == 200
        assert status(f"Bearer {keys['publish']}") == 403
        assert {status(None), status("Bearer"), status("Bearer x"), status(f"Basic {keys['operate']}")} == {
            401
        }
        assert "metrics_need_a_key" not in worker.log.read_text()


@pytest.mark.slow
def test_without_a_key_nobody_reads_its_metrics_and_the_log_says_so(start: Any) -> None:
    worker = start("worker", "router", "--port", "0", log_format="json")
    with asking(worker) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/livez").status_code == 200
    assert "metrics_need_a_key" in worker.log.read_text()


@pytest.mark.slow
def test_a_hung_loop_does_not_say_that_it_lives(
    start: Any, cli: Any, tmp_path: Path, waiting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocking = CHANNEL.replace("await asyncio.sleep(0.01)", "time.sleep(0.01)")
    (tmp_path / "hung_channel.py").write_text(blocking)
    (tmp_path / "types" / "like").mkdir(parents=True)
    (tmp_path / "types" / "like" / "event.toml").write_text("")
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "e.jsonl").write_text(json.dumps({"type": "like", "recipient": "u1"}))
    settings = {"channels": "hung_channel:open_channel", "templates": str(tmp_path / "types")}
    worker = start("worker", "all", "--port", "0", log_format="json", **settings)
    with asking(worker) as client:
        assert client.get("/livez").status_code == 200
        assert cli("publish", tmp_path / "e.jsonl", **settings).code == 0
        assert worker.stdout.readline() == "sending\n"
        with pytest.raises(httpx.TimeoutException):
            client.get("/livez", timeout=0.5)
        (tmp_path / "gate").touch()
        waiting(lambda: client.get("/livez").status_code == 200, "it lives again")
