"""Tells the administrators of dead deliveries: an event like any other, at most one per channel and interval.

The dead are counted in the commit that moves them, so no count is lost; it goes down when the alert has
been published. Whoever dies between the two alerts once more, which is better than not at all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from notifier import metrics
from notifier.broker.connection import Client
from notifier.broker.entries import MalformedEntry
from notifier.broker.scripts import Call, ask, run_all, script
from notifier.dead_letters import ALERT_TYPE, split
from notifier.errors import BrokerError, NotifierError
from notifier.keys import Keys
from notifier.publisher import AsyncPublisher
from notifier.uuid7 import uuid7

log = structlog.get_logger(__name__)

_SAMPLE = 100  # of each partition's dead, how many are read for the counts by error
_LONGEST_PAUSE = timedelta(seconds=5)


class Alerter:
    """Looks for unalerted dead every few seconds. Any number of workers may run one."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        publisher: AsyncPublisher,
        queues: Sequence[str],
        admins: Sequence[str],
        interval: timedelta,
    ) -> None:
        self._client = client
        self._keys = keys
        self._publisher = publisher
        self._queues = queues
        self._admins = [{"id": admin, "email": admin} if "@" in admin else {"id": admin} for admin in admins]
        self._interval = interval

    async def run(self) -> None:
        """Until cancelled. What fails is logged and tried again; only a published alert is counted off."""
        if not self._admins:
            log.warning("alerts_reach_nobody", setting="NOTIFIER_ADMINS")
            return
        pause = min(_LONGEST_PAUSE, self._interval / 4).total_seconds()
        while True:
            try:
                for queue in await self._unalerted():
                    await self.tell(queue)
            except NotifierError as error:
                log.warning("alert_failed", error=str(error))
            await asyncio.sleep(pause)

    async def _unalerted(self) -> dict[str, dict[int, int]]:
        """For each queue with unalerted dead, how many in which partition."""
        names = map(self._keys.unalerted, range(self._keys.partitions))
        rows = await ask(self._client, *(("HMGET", name, *self._queues) for name in names))
        found: dict[str, dict[int, int]] = {}
        for partition, row in enumerate(rows):
            for queue, count in zip(self._queues, row, strict=True):
                if count and int(count) > 0:
                    found.setdefault(queue, {})[partition] = int(count)
        return found

    async def tell(self, queue: str) -> None:
        """Publishes an alert of the queue's dead, unless there was one within the interval."""
        gate = self._keys.alert(queue)
        interval_ms = int(self._interval / timedelta(milliseconds=1))
        [opened] = await ask(self._client, ("SET", gate, "", "NX", "PX", interval_ms))
        if not opened:
            return
        counts = (await self._unalerted()).get(queue)  # anew: another may have told of them meanwhile
        if not counts:
            return
        errors, since_ms = await self._errors(queue, counts)
        total = sum(counts.values())
        since = datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(timespec="seconds")
        event: dict[str, Any] = {
            "id": f"{ALERT_TYPE}:{uuid7()}",
            "type": ALERT_TYPE,
            "recipients": self._admins,
            "data": {"channel": queue, "count": total, "errors": errors, "since": since},
        }
        try:
            await self._publisher.publish(event)
        except NotifierError:
            await ask(self._client, ("DEL", gate))
            raise
        metrics.ALERTS.labels(queue).inc()
        log.error("dead_deliveries", queue=queue, count=total, since=since)
        down = script("alerted")
        calls = [Call(down, (self._keys.unalerted(p),), (queue, count)) for p, count in counts.items()]
        for reply in await run_all(self._client, calls):
            if isinstance(reply, BrokerError):
                raise reply

    async def _errors(self, queue: str, counts: dict[int, int]) -> tuple[list[dict[str, Any]], int]:
        """How often which error, of a sample of the newest, and when the oldest of them died (ms)."""
        newest = [
            ("XREVRANGE", self._keys.dead(queue, p), "+", "-", "COUNT", min(count, _SAMPLE))
            for p, count in counts.items()
        ]
        errors: Counter[str] = Counter()
        since_ms = int(datetime.now(UTC).timestamp() * 1000)
        for entries in await ask(self._client, *newest):
            for _, fields in entries:
                try:
                    failure, _ = split(fields)
                except MalformedEntry:  # what died was no entry of ours, and had fields of these names
                    continue
                errors[failure.error] += 1
                since_ms = min(since_ms, failure.last_ms)
        return [{"error": error, "count": count} for error, count in errors.most_common()], since_ms
