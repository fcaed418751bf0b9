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
from notifier.broker.line import Argument, Command, Line
from notifier.errors import BrokerError

Caller = redis.asyncio.Redis | Line
"""Who brings calls to the server: a client with a pool, or a line for those who call often."""


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


async def run(caller: Caller, call: Call) -> Any:
    """The script's reply. Raises BrokerError."""
    [reply] = await run_all(caller, [call])
    if isinstance(reply, BrokerError):
        raise reply
    return reply


async def run_all(caller: Caller, calls: Sequence[Call], then: Command = ()) -> list[Any]:
    """The replies in order, in one round trip; a call that failed has its BrokerError there.

    `then` is a plain command that follows on the same connection; its reply comes last. Raises
    BrokerError only when the connection failed: then any of the calls may have run.
    """
    replies = await execute(caller, _commands(calls, then))
    if again := _unknown(replies):
        needed = {calls[i].script.sha: calls[i].script.source for i in again}
        await execute(caller, [("SCRIPT", "LOAD", source) for source in needed.values()])
        _put(replies, again, await execute(caller, _commands([calls[i] for i in again], then)))
    return [_typed(reply) for reply in replies]


async def execute(caller: Caller, commands: Sequence[Command]) -> list[Any]:
    """Plain commands in one round trip; the replies in order, an error as redis-py's exception."""
    if isinstance(caller, Line):
        return await caller.execute(commands)
    with broker_errors():
        pipeline = caller.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)


def run_all_sync(client: redis.Redis, calls: Sequence[Call], then: Command = ()) -> list[Any]:
    """`run_all` for the blocking client."""
    replies = _execute_sync(client, _commands(calls, then))
    if again := _unknown(replies):
        needed = {calls[i].script.sha: calls[i].script.source for i in again}
        _execute_sync(client, [("SCRIPT", "LOAD", source) for source in needed.values()])
        _put(replies, again, _execute_sync(client, _commands([calls[i] for i in again], then)))
    return [_typed(reply) for reply in replies]


def _execute_sync(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    with broker_errors():
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute(raise_on_error=False)


def _commands(calls: Sequence[Call], then: Command) -> list[Command]:
    commands: list[Command] = [call.command() for call in calls]
    return [*commands, then] if then else commands


def _unknown(replies: Sequence[Any]) -> list[int]:
    return [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]


def _put(replies: list[Any], places: Sequence[int], later: Sequence[Any]) -> None:
    for place, reply in zip(places, later, strict=False):
        replies[place] = reply
    if len(later) > len(places):  # the plain command ran again too, and only its last answer counts
        replies[-1] = later[-1]


def _typed(reply: Any) -> Any:
    return translate(reply) if isinstance(reply, RedisError) else reply
