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
Command = Sequence[Argument]


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


async def run_all(client: redis.asyncio.Redis, calls: Sequence[Call], then: Command = ()) -> list[Any]:
    """The replies in order, in one round trip; a call that failed has its BrokerError there.

    `then` is a plain command that follows on the same connection; its reply comes last. Raises
    BrokerError only when the connection failed: then any of the calls may have run.
    """
    with broker_errors():
        replies = await _commands(calls, then, client.pipeline(transaction=False)).execute(
            raise_on_error=False
        )
        while again := _unknown(replies):
            for needed in {calls[i].script.sha: calls[i].script for i in again}.values():
                await client.script_load(needed.source)
            pipeline = _commands([calls[i] for i in again], then, client.pipeline(transaction=False))
            _put(replies, again, await pipeline.execute(raise_on_error=False))
    return [_typed(reply) for reply in replies]


def run_all_sync(client: redis.Redis, calls: Sequence[Call], then: Command = ()) -> list[Any]:
    """`run_all` for the blocking client."""
    with broker_errors():
        replies = _commands(calls, then, client.pipeline(transaction=False)).execute(raise_on_error=False)
        while again := _unknown(replies):
            for needed in {calls[i].script.sha: calls[i].script for i in again}.values():
                client.script_load(needed.source)
            pipeline = _commands([calls[i] for i in again], then, client.pipeline(transaction=False))
            _put(replies, again, pipeline.execute(raise_on_error=False))
    return [_typed(reply) for reply in replies]


def _commands(calls: Sequence[Call], then: Command, pipeline: Any) -> Any:
    for call in calls:
        pipeline.execute_command(*call.command())
    if then:
        pipeline.execute_command(*then)
    return pipeline


def _unknown(replies: Sequence[Any]) -> list[int]:
    return [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]


def _put(replies: list[Any], places: Sequence[int], later: Sequence[Any]) -> None:
    for place, reply in zip(places, later, strict=False):
        replies[place] = reply
    if len(later) > len(places):  # the plain command ran again too, and only its last answer counts
        replies[-1] = later[-1]


def _typed(reply: Any) -> Any:
    return translate(reply) if isinstance(reply, RedisError) else reply
