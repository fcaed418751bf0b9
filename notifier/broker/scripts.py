"""The Lua scripts, loaded from `lua/` by name, and how they are called.

A file may hold lines `-- include NAME`; each is replaced by `lua/includes/NAME.lua`. Calls go out
as EVALSHA, many of them in one round trip; a server that does not know a script yet is taught it
once and asked again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from notifier.broker.connection import broker_errors, translate
from notifier.errors import BrokerError

Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and its SHA-1, which is how EVALSHA names it."""

    name: str
    source: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script `lua/<name>.lua`, with its includes."""
    folder = files("notifier.broker") / "lua"
    source = re.sub(
        r"^-- include (\w+)$",
        lambda match: (folder / "includes" / f"{match[1]}.lua").read_text().rstrip(),
        (folder / f"{name}.lua").read_text(),
        flags=re.MULTILINE,
    )
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())  # noqa: S324 - Redis's own name for it


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script; all keys lie in one slot."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]

    def command(self) -> tuple[Argument, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


async def run(client: redis.asyncio.Redis, call: Call) -> Any:
    """The script's reply. Raises BrokerError."""
    [reply] = await run_all(client, [call])
    if isinstance(reply, BrokerError):
        raise reply
    return reply


async def run_all(client: redis.asyncio.Redis, calls: Sequence[Call]) -> list[Any]:
    """The replies in order, in one round trip; a call that failed has its BrokerError there.

    Raises BrokerError only when the connection failed: then any of the calls may have run.
    """
    with broker_errors():
        replies = await _pipeline(client, calls)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            for needed in {calls[i].script.sha: calls[i].script for i in unknown}.values():
                await client.script_load(needed.source)
            for i, reply in zip(unknown, await _pipeline(client, [calls[i] for i in unknown]), strict=True):
                replies[i] = reply
    return [_typed(reply) for reply in replies]


def run_all_sync(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    """`run_all` for the blocking client."""
    with broker_errors():
        replies = _pipeline_sync(client, calls)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            for needed in {calls[i].script.sha: calls[i].script for i in unknown}.values():
                client.script_load(needed.source)
            for i, reply in zip(unknown, _pipeline_sync(client, [calls[i] for i in unknown]), strict=True):
                replies[i] = reply
    return [_typed(reply) for reply in replies]


async def _pipeline(client: redis.asyncio.Redis, calls: Sequence[Call]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        pipeline.execute_command(*call.command())
    return await pipeline.execute(raise_on_error=False)


def _pipeline_sync(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        pipeline.execute_command(*call.command())
    return pipeline.execute(raise_on_error=False)


def _typed(reply: Any) -> Any:
    return translate(reply) if isinstance(reply, RedisError) else reply
