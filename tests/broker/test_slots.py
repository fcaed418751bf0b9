"""The key by which a command finds its node is the one that the server takes for it."""

from __future__ import annotations

import pytest
import redis

from notifier.broker.line import Command
from notifier.broker.scripts import Call, script
from notifier.broker.slots import key_of

LEASE = "{ntf:01}:post:lease"
CALL = Call(script("mark"), (LEASE, "{ntf:01}:post"), ("a",))

COMMANDS: list[Command] = [
    ("GET", "k"),
    ("get", b"k"),
    ("ZMSCORE", "k", "m"),
    ("MGET", "k", "{k}2"),
    ("XADD", "k", "*", "STREAMS", "x"),
    ("XGROUP", "CREATE", "k", "g", "0", "MKSTREAM"),
    ("XGROUP CREATE", "k", "g", "0", "MKSTREAM"),
    ("XGROUP", "DELCONSUMER", "k", "g", "c"),
    ("XINFO", "GROUPS", "k"),
    ("xinfo stream", b"k"),
    ("XINFO", "CONSUMERS", "k", "g"),
    ("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", b"k", b">"),
    ("XREADGROUP", "GROUP", "STREAMS", "streams", "NOACK", "streams", "k", "{k}2", ">", ">"),
    ("XREAD", "COUNT", 1, "BLOCK", 5, "STREAMS", "k", "0"),
    ("XREAD", "STREAMS", "STREAMS", "0"),
    ("XAUTOCLAIM", "k", "g", "c", 0, "0"),
    ("XPENDING", "k", "g"),
    ("OBJECT", "ENCODING", "k"),
    ("MEMORY", "USAGE", "k", "SAMPLES", 0),
    ("MEMORY USAGE", "k"),
    ("BITOP", "AND", "k", "{k}2"),
    ("EVAL", "return 1", 1, "k", "x"),
    ("EVALSHA_RO", "0" * 40, "2", "k", "{k}2", "x"),
    ("FCALL", "f", 1, "k"),
    ("SINTERCARD", 2, "k", "{k}2"),
    ("ZINTER", 1, "k", "WITHSCORES"),
    ("BLMPOP", 0, 1, "k", "LEFT"),
    ("LMPOP", 1, "k", "LEFT"),
    CALL.command(),
    CALL.teaching(),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(map(str, command))[:60])
def test_the_key_is_the_servers_first_key(redis_url: str, command: Command) -> None:
    key = key_of(command)
    assert key is not None
    assert (key.decode() if isinstance(key, bytes) else key) == _keys_as_the_server_has_them(
        redis_url, command
    )[0]


@pytest.mark.parametrize(
    "command",
    [
        ("TIME",),
        ("ping",),
        ("SCRIPT", "LOAD", "return 1"),
        ("SCRIPT LOAD", "return 1"),
        ("SCRIPT FLUSH",),
        ("WAIT", 1, 100),
        ("INFO", "server"),
        ("CLUSTER", "SLOTS"),
        ("EVAL", "return 1", 0),
        ("EVALSHA", "0" * 40, "0", "argument"),
        ("MEMORY", "DOCTOR"),
        ("XINFO", "HELP"),
    ],
    ids=lambda command: " ".join(map(str, command))[:60],
)
def test_what_has_no_key_goes_to_any_node(redis_url: str, command: Command) -> None:
    assert _keys_as_the_server_has_them(redis_url, command) == []
    assert key_of(command) is None


def _keys_as_the_server_has_them(url: str, command: Command) -> list[str]:
    words = [*str(command[0]).split(), *command[1:]]
    with redis.Redis.from_url(url, decode_responses=True) as client:
        try:
            found: list[str] = client.execute_command("COMMAND GETKEYS", *words)
        except redis.ResponseError as error:
            if "no key arguments" not in str(error):
                raise
            return []
    return found
