"""One server and the means to reach it, for the run of one example."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from redis.exceptions import NoScriptError

from notifier.broker.connection import connect, open_line
from notifier.broker.line import Argument, Command
from notifier.broker.scripts import Call, run, script
from notifier.errors import BrokerUnavailable
from notifier.local.broker import EmbeddedBroker
from notifier.publisher import Publisher
from tests.model.read_back import read_back
from tests.model.things import KEYS, PartitionView

T = TypeVar("T")

BACKLOG_LIMIT = 12


class World:
    """Empties the server at first. Everything runs on a loop of its own, which stands still between calls."""

    def __init__(self, server: EmbeddedBroker) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._connect()
        self.command("FLUSHALL")

    def _connect(self) -> None:
        url = self._server.url
        self.client = connect(url)
        self.line = open_line(self.client)
        self.publisher = Publisher(
            url, namespace=KEYS.namespace, partitions=KEYS.partitions, backlog_limit=BACKLOG_LIMIT
        )

    def _disconnect(self) -> None:
        self.publisher.close()
        self.wait(self.line.close())
        self.wait(self.client.aclose())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def command(self, *words: Argument) -> Any:
        """The reply to a plain command, from somebody who works by hand."""
        [reply] = self.wait(self.line.execute([words]))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def script(self, name: str, keys: Sequence[str], *args: Argument) -> Any:
        """The reply of a script. Raises BrokerError."""
        return self.wait(run(self.line, Call(script(name), keys, args)))

    def look(self) -> list[PartitionView]:
        return self.wait(read_back(self.line))

    def restart_server(self) -> None:
        """As if it had crashed: what it had on its disk it knows again."""
        self.command("CONFIG", "SET", "appendfsync", "always")  # written through before it answers
        self._disconnect()
        self._server.kill()
        self._server.start()
        self._connect()

    def close(self) -> None:
        self._disconnect()
        self._loop.close()


class Wire:
    """A caller that can lose an answer: the commands run, and whoever sent them does not hear of it.

    After that it holds back what is sent next, until `repair`.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._loses_next = False
        self._whole = asyncio.Event()
        self._whole.set()

    @property
    def is_broken(self) -> bool:
        return not self._whole.is_set()

    def lose_next(self) -> None:
        self._loses_next = True

    def repair(self) -> None:
        self._whole.set()

    async def execute(self, commands: Sequence[Command], then: Command = ()) -> list[Any]:
        await self._whole.wait()
        replies = await self._world.line.execute(commands, then)
        ran = not any(isinstance(reply, NoScriptError) for reply in replies)
        if self._loses_next and ran:
            self._loses_next = False
            self._whole.clear()
            raise BrokerUnavailable("the answer was lost")
        return replies
