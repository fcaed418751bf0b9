"""What a server of ours does with its clients when it closes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from notifier.local.listener import Listener


async def never(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")


async def test_a_client_gets_all_that_was_written() -> None:
    async with Listener(greet) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await reader.read() == b"hello"
        writer.close()


@pytest.mark.parametrize("turns", range(6))
async def test_it_hangs_up_on_clients_however_short_they_are_there(turns: int) -> None:
    """With `turns` of the loop between the connection and the end: before it is accepted, before its task
    has begun, and after."""
    async with Listener(never) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        for _ in range(turns):
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        with suppress(ConnectionResetError):  # what it has not accepted the kernel resets
            assert await reader.read() == b""
    writer.close()
    assert listener.clients == 0


async def test_it_may_be_opened_again_at_the_same_port() -> None:
    listener = Listener(greet)
    port = await listener.open()
    await listener.close()
    await listener.close()
    assert await listener.open(port) == listener.port == port
    await listener.close()
