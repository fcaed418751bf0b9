"""The broker: whether it answers, how fast, by which clock, and what it lets us do."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from redis.exceptions import NoPermissionError

from notifier.broker.connection import Client
from notifier.broker.line import Command
from notifier.broker.nodes import ONLY, ask_each
from notifier.broker.scripts import ask, execute
from notifier.channel import Finding
from notifier.errors import BrokerError
from notifier.keys import GROUP, Keys
from notifier.operations.doctor import server
from notifier.operations.doctor.findings import error, ok, warning
from notifier.settings import Settings

_PINGS: Final = 20
_SLOW_MS, _TOO_SLOW_MS = 5.0, 100.0
_OTHER_CLOCK, _WRONG_CLOCK = 1.0, 30.0
_OPTIONS = ("appendfsync", "save")


async def look(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    """Raises BrokerError when it does not answer."""
    infos = {name: server.parsed(reply) for name, reply in (await ask_each(client, ("INFO",))).items()}
    yield ok("reachable", "yes" if ONLY in infos else f"yes, a cluster with {len(infos)} primaries")
    options = await _options(client, infos)
    for name, info in infos.items():
        for finding in server.look(info, options.get(name, {}), settings):
            yield finding if name == ONLY else _of(name, finding)
    yield await _clock(client)
    yield await _latency(client)
    for finding in await _rights(client, Keys(settings.namespace)):
        yield finding


def _of(name: str, finding: Finding) -> Finding:
    return Finding(finding.level, f"{finding.what} of {name}", finding.found, finding.means, finding.mend)


async def _options(client: Client, infos: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    """What CONFIG GET says; nothing, where that is not allowed."""
    found: dict[str, dict[str, str]] = {name: {} for name in infos}
    for option in _OPTIONS:
        try:
            replies = await ask_each(client, ("CONFIG", "GET", option))
        except BrokerError:
            return {}
        for name, reply in replies.items():
            words = next(iter(reply.items())) if isinstance(reply, dict) and reply else tuple(reply)
            if len(words) == 2:
                found.setdefault(name, {})[option] = words[1].decode()
    return found


async def _clock(client: Client) -> Finding:
    before = time.time()
    [[seconds, micros]] = await ask(client, ("TIME",))
    ours = (before + time.time()) / 2
    ahead = int(seconds) + int(micros) / 1e6 - ours
    found = f"the server's is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    if abs(ahead) < _OTHER_CLOCK:
        return ok("clocks", "the server's and ours agree")
    level = error if abs(ahead) > _WRONG_CLOCK else warning
    means = "What has a time comes early or late, and users' tokens are refused or last too long."
    return level(
        "clocks", found, means, "Let NTP set the clocks of both machines (timedatectl set-ntp true)."
    )


async def _latency(client: Client) -> Finding:
    times = []
    for _ in range(_PINGS):
        began = time.monotonic()
        await ask(client, ("TIME",))
        times.append((time.monotonic() - began) * 1_000)
    median = statistics.median(times)
    found = f"{median:.1f} ms, at most {max(times):.1f} ms of {_PINGS}"
    if median < _SLOW_MS:
        return ok("round trip", found)
    level = error if median > _TOO_SLOW_MS else warning
    means = "Each worker waits for the server most of the time."
    return level("round trip", found, means, "Bring the workers near the server: one zone, no proxy between.")


def _harmless(keys: Keys) -> Iterator[tuple[str, Command]]:
    """What the service does, done to a key that never exists, so that nothing comes of it."""
    key = f"{keys.tag(0)}:absent"
    yield "scripts", ("EVAL", "return 0", 1, key)
    yield "streams", ("XADD", key, "NOMKSTREAM", "*", "a", "b")
    yield "streams", ("XREADGROUP", "GROUP", GROUP, "doctor", "COUNT", 1, "STREAMS", key, ">")
    yield "streams", ("XDEL", key, "1-1")
    yield "lists", ("RPUSHX", key, "a")
    yield "sorted sets", ("ZADD", key, "XX", 1, "a")
    yield "hashes", ("HDEL", key, "a")
    yield "strings", ("SET", key, "", "XX")
    yield "keys", ("PEXPIRE", key, 1)
    yield "keys", ("UNLINK", key)
    yield "channels of inboxes", ("SPUBLISH", key, "")
    yield f"{keys.namespace}:*", ("ZREM", keys.workers("absent"), "doctor")
    yield f"{keys.namespace}:*", ("HGET", keys.meta(), "partitions")


async def _rights(client: Client, keys: Keys) -> list[Finding]:
    named = list(_harmless(keys))
    replies = await execute(client, [command for _, command in named])
    refused = {
        what: str(command[0])
        for (what, command), reply in zip(named, replies, strict=True)
        if isinstance(reply, NoPermissionError)
    }
    if not refused:
        return [ok("rights", "everything that the service does is allowed")]
    rule = f"~{{{keys.namespace}:* ~{keys.namespace}:* &{{{keys.namespace}:* +@all -@dangerous +role +info"
    means = "Part of the service will fail."
    told = ", ".join(f"{what} ({command})" for what, command in refused.items())
    return [error("rights", f"refused: {told}", means, f"ACL SETUSER our-user {rule}")]
