"""Which slot a command belongs to, and which node serves the slot (Redis Cluster specification)."""

from __future__ import annotations

import binascii
import random
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from notifier.broker.line import Argument, Command
from notifier.broker.url import Address

SLOTS: Final = 16384

# The key of a command is its second word, except here; redis.io/docs/latest/develop/reference/key-specs.
_KEYLESS = frozenset({"TIME", "PING", "ECHO", "INFO", "WAIT", "WAITAOF", "SCRIPT", "CLUSTER", "COMMAND"})
_AFTER_A_SUBCOMMAND = frozenset({"XGROUP", "XINFO", "OBJECT", "MEMORY", "DEBUG", "BITOP"})
_AFTER_STREAMS = {"XREAD": 1, "XREADGROUP": 4}  # behind GROUP, the group, and the consumer
_AFTER_THEIR_NUMBER = {
    **dict.fromkeys(("EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO", "FCALL", "FCALL_RO", "BLMPOP", "BZMPOP"), 2),
    **dict.fromkeys(("LMPOP", "ZMPOP", "SINTERCARD", "ZINTERCARD", "ZUNION", "ZINTER", "ZDIFF"), 1),
}


def tag_of(key: str) -> str:
    """The part of a key that decides about its slot: what stands in the first braces, if anything does."""
    before, brace, rest = key.partition("{")
    tag, end, _ = rest.partition("}")
    return tag if brace and end and tag else before + brace + rest


@lru_cache(maxsize=4096)
def _slot_of_tag(tag: str) -> int:
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS  # CRC-16/XMODEM


def slot_of(key: Argument) -> int:
    return _slot_of_tag(tag_of(key.decode() if isinstance(key, bytes) else str(key)))


def key_of(command: Command) -> Argument | None:
    """The first key of a command, or None for one that any node can answer."""
    name, *rest = _word(command[0]).split()
    if name in _KEYLESS:
        return None
    words = (name, *rest, *command[1:])  # a name may be two words, such as XGROUP CREATE
    if number := _AFTER_THEIR_NUMBER.get(name):
        return words[number + 1] if int(words[number]) else None
    if start := _AFTER_STREAMS.get(name):
        return words[next(at for at in range(start, len(words)) if _word(words[at]) == "STREAMS") + 1]
    if name in _AFTER_A_SUBCOMMAND:
        return words[2] if len(words) > 2 else None
    return words[1]


def _word(argument: Argument) -> str:
    return (argument.decode(errors="replace") if isinstance(argument, bytes) else str(argument)).upper()


class SlotMap:
    """Which node serves which slot, as far as we have heard."""

    def __init__(self, seeds: Sequence[Address]) -> None:
        self._seeds = tuple(seeds)
        self._nodes: list[Address | None] = [None] * SLOTS
        self.primaries: frozenset[Address] = frozenset()
        self._silent: set[Address] = set()
        self.said: dict[Address, str] = {}

    def node_of(self, slot: int | None) -> Address | None:
        """The node of a slot, or any for None; None when nobody is known to serve it."""
        if slot is not None:
            return self._nodes[slot]
        return random.choice(tuple(self.primaries)) if self.primaries else None  # noqa: S311 - load

    def moved(self, slot: int, node: Address) -> None:
        self._nodes[slot] = node

    def silent(self, nodes: Iterable[Address]) -> None:
        """These did not answer of late, so others are asked first."""
        self._silent.update(nodes)

    def heard(self, node: Address, reply: Any) -> bool:
        """Takes over what a node says to CLUSTER SLOTS, or the error that came instead. False: it is no map;
        others are asked first now, and `said` tells why."""
        if reply and not isinstance(reply, Exception):
            self.learn(node, reply)
            return True
        self.silent([node])
        why = "knows of no slots" if isinstance(reply, list) else str(reply) or type(reply).__name__
        self.said[node] = f"{node}: {why}"
        return False

    def to_ask(self) -> list[Address]:
        """Whom to ask for the map, in this order: those that we know of, then those that we were given."""
        known = list(self.primaries)
        random.shuffle(known)
        nodes = [*known, *(seed for seed in self._seeds if seed not in self.primaries)]
        return sorted(nodes, key=self._silent.__contains__)

    def learn(self, asked: Address, reply: Iterable[Any]) -> None:
        """Takes over the reply to CLUSTER SLOTS of a node."""
        nodes: list[Address | None] = [None] * SLOTS
        for first, last, primary, *_ in reply:
            if primary[0] == b"?":  # the node that we asked does not know it yet
                continue
            node = Address((primary[0] or b"").decode() or asked.host, int(primary[1]))
            nodes[int(first) : int(last) + 1] = [node] * (int(last) - int(first) + 1)
        self._nodes = nodes
        self._silent.clear()
        self.said.clear()
        self.primaries = frozenset(node for node in nodes if node is not None)
