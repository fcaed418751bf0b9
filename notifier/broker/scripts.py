"""The Lua scripts, loaded from `lua/` by name, and how they are called.

A file may hold lines `-- include NAME`; each is replaced by `lua/includes/NAME.lua`, which may hold such
lines too. Calls go out as EVALSHA, many of them in one round trip; what a server does not know yet is sent
again as EVAL, from which it learns the script.
"""

from __future__ import annotations

import asyncio
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

from notifier.broker import line_sync
from notifier.broker.connection import Client, SyncClient
from notifier.broker.failures import broker_errors, translate
from notifier.broker.line import Argument, Command, exchange_on_lent
from notifier.broker.line import Caller as OwnCaller
from notifier.errors import BrokerError

Caller = Client | OwnCaller
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
    source = _source(f"{name}.lua")
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())  # noqa: S324 - Redis's own name for it


def _source(file: str) -> str:
    return re.sub(
        r"^-- include (\w+)$",
        lambda match: _source(f"includes/{match[1]}.lua").rstrip(),
        (files("notifier.broker") / "lua" / file).read_text(),
        flags=re.MULTILINE,
    )


def load_all() -> None:
    """Reads every script now, for a process that stays: when it first needs one, the file may be that of
    another version, or there may be no file descriptor left to read it with."""
    for file in (files("notifier.broker") / "lua").iterdir():
        name, _, kind = file.name.rpartition(".")
        if kind == "lua":
            script(name)


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script; all keys lie in one slot."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]

    def command(self) -> tuple[Argument, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def teaching(self) -> tuple[Argument, ...]:
        """The same for a server that does not know the script. In a cluster it finds its node as the other
        one did, which SCRIPT LOAD would not."""
        return ("EVAL", self.script.source, *self.command()[2:])


async def run(caller: Caller, call: Call) -> Any:
    """The script's reply. Raises BrokerError."""
    [reply] = await run_all(caller, [call])
    if isinstance(reply, BrokerError):
        raise reply
    return reply


async def run_all(caller: Caller, calls: Sequence[Call], then: Command = ()) -> list[Any]:
    """The replies in order, in one round trip; a call that failed has its BrokerError there.

    `then` is a plain command that follows on the same connection, in a cluster on each; its reply comes
    last, and in a cluster it is the least favourable. Raises BrokerError only when no answer came at all:
    then any of the calls may have run.
    """
    replies = await execute(caller, [call.command() for call in calls], then)
    if again := _unknown(replies):
        _put(replies, again, await execute(caller, [calls[i].teaching() for i in again], then))
    return [_typed(reply) for reply in replies]


async def execute(caller: Caller, commands: Sequence[Command], then: Command = ()) -> list[Any]:
    """Plain commands in one round trip; the raw replies in order, an error as redis-py's exception."""
    if not isinstance(caller, redis.asyncio.Redis):
        return await caller.execute(commands, then)
    if then:
        commands = [*commands, then]
    pool = caller.connection_pool
    with broker_errors():
        async with asyncio.timeout(pool.connection_kwargs.get("socket_timeout")):
            return await exchange_on_lent(pool, commands)


async def ask(caller: Caller, *commands: Command) -> list[Any]:
    """The raw replies in order. Raises the BrokerError of the first command that failed."""
    replies = await execute(caller, commands)
    for reply in replies:
        if isinstance(reply, Exception):
            raise translate(reply)
    return replies


def run_all_sync(client: SyncClient, calls: Sequence[Call], then: Command = ()) -> list[Any]:
    """`run_all` for the blocking client."""
    replies = _execute_sync(client, [call.command() for call in calls], then)
    if again := _unknown(replies):
        _put(replies, again, _execute_sync(client, [calls[i].teaching() for i in again], then))
    return [_typed(reply) for reply in replies]


def _execute_sync(client: SyncClient, commands: Sequence[Command], then: Command) -> list[Any]:
    if not isinstance(client, redis.Redis):
        return client.execute(commands, then)
    if then:
        commands = [*commands, then]
    with broker_errors(), line_sync.lent(client.connection_pool) as connection:
        line_sync.send(connection, commands)
        return line_sync.read_replies(connection, len(commands))


def _unknown(replies: Sequence[Any]) -> list[int]:
    return [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]


def _put(replies: list[Any], places: Sequence[int], later: Sequence[Any]) -> None:
    for place, reply in zip(places, later, strict=False):
        replies[place] = reply
    if len(later) > len(places):  # the plain command ran again too, and only its last answer counts
        replies[-1] = later[-1]


def _typed(reply: Any) -> Any:
    return translate(reply) if isinstance(reply, RedisError | BrokerError) else reply
