"""What each data server says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from notifier.channel import Finding
from notifier.operations.doctor.findings import error, ok, warning
from notifier.settings import Settings

OLDEST: Final = {"redis": (7, 0), "valkey": (8, 0)}
_WAITAOF: Final = {"redis": (7, 2), "valkey": (8, 0)}
_MEBIBYTE: Final = 1 << 20

Info = Mapping[str, str]
"""The fields of INFO."""


def parsed(reply: Any) -> Info:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in pairs}


def look(info: Info, options: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    """`options` are those of CONFIG GET that may be read; none for a user with few rights."""
    yield from _version(info)
    yield _role(info)
    yield from _persistence(info, options, settings)
    yield from _memory(info)
    yield from _durability(info, settings)


def kind_of(info: Info) -> tuple[str, tuple[int, ...]]:
    """`valkey` or `redis`, and its version."""
    kind = "valkey" if "valkey_version" in info else "redis"
    text = info.get(f"{kind}_version", "0")
    return kind, tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _version(info: Info) -> Iterator[Finding]:
    kind, version = kind_of(info)
    name = f"{kind.capitalize()} {'.'.join(map(str, version))}"
    if version[:2] >= OLDEST[kind]:
        yield ok("version", name)
    else:
        means = "It lacks commands that the queues need."
        yield error("version", name, means, "Use Redis 7.0 or later, or Valkey 8 or later.")


def _role(info: Info) -> Finding:
    role = info.get("role", "?")
    if role == "master":
        return ok("role", "primary")
    means = "It takes no writes: nothing can be published or delivered through it."
    mend = "Let NOTIFIER_REDIS_URL name the primary, or the sentinels (redis+sentinel://)."
    return error("role", f"a replica of {info.get('master_host', '?')}", means, mend)


def _persistence(info: Info, options: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    if info.get("aof_enabled") == "1":
        fsync = options.get("appendfsync")
        if fsync == "no":
            means = "A crash of the machine may lose half a minute of what was accepted."
            yield warning("appendfsync", "no", means, "CONFIG SET appendfsync everysec, then CONFIG REWRITE")
        else:
            yield ok("appendonly", f"yes, appendfsync {fsync or 'may not be read'}")
    else:
        saves = options.get("save")
        found = "no" if saves is None else f"no, save {saves or 'never'}"
        means = (
            "A restart of the server loses everything since its last snapshot."
            if saves
            else "A restart of the server loses everything that waits, and all inboxes."
        )
        mend = "CONFIG SET appendonly yes, then CONFIG REWRITE"
        level = error if settings.durability == "fsync" or not saves else warning
        yield level("appendonly", found, means, mend)
    yield from _last_saves(info)


def _last_saves(info: Info) -> Iterator[Finding]:
    last = {
        "rdb_last_bgsave_status": "The last snapshot failed; the server may refuse writes (MISCONF).",
        "aof_last_write_status": "The last write to the append-only file failed; the server refuses writes.",
        "aof_last_bgrewrite_status": "The last rewrite of the append-only file failed; it grows on and on.",
    }
    failed = [name for name in last if info.get(name, "ok") != "ok"]
    for name in failed:
        mend = "Look into the server's log: mostly its disk is full, or fork() lacks memory."
        yield error(name, info[name], last[name], mend)
    if not failed:
        yield ok("last saves", "without an error")


def _memory(info: Info) -> Iterator[Finding]:
    limit, used = _number(info, "maxmemory"), _number(info, "used_memory")
    policy = info.get("maxmemory_policy", "?")
    if policy == "noeviction":
        yield ok("maxmemory-policy", policy)
    else:
        means = "At its limit the server throws away queues and inboxes instead of refusing."
        mend = "CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE"
        yield error("maxmemory-policy", policy, means, mend)
    if not limit:
        means = "When the machine's memory ends, the system kills the server, which should have refused."
        mend = "CONFIG SET maxmemory SIZE below what the machine has (such as 3gb of 4), then CONFIG REWRITE"
        yield warning("maxmemory", f"no limit; {_size(used)} are used", means, mend)
    else:
        share = used / limit
        found = f"{_size(used)} of {_size(limit)}, {share:.0%}"
        means = "At the limit publishing is refused (BrokerFull)."
        mend = "CONFIG SET maxmemory a larger SIZE; or discard what is dead (notifier dlq discard)."
        level = error if share > 0.95 else warning if share > 0.8 else None
        yield level("memory", found, means, mend) if level else ok("memory", found)
    ratio = float(info.get("mem_fragmentation_ratio", "1") or 1)
    if ratio > 1.8 and used > 256 * _MEBIBYTE:
        means = "The server takes far more memory of the machine than it holds."
        yield warning("fragmentation", f"{ratio:.2f}", means, "CONFIG SET activedefrag yes, or restart it")
    elif 0 < ratio < 0.9 and used > 256 * _MEBIBYTE:
        means = "Part of the server lies in swap: everything takes long."
        yield warning("fragmentation", f"{ratio:.2f}", means, "Give the machine more memory.")


def _durability(info: Info, settings: Settings) -> Iterator[Finding]:
    replicas, wanted = _number(info, "connected_slaves"), settings.durability
    kind, version = kind_of(info)
    if wanted == "replicas" and not replicas:
        yield error(
            "NOTIFIER_DURABILITY", "replicas, and none is connected", "Every publish fails.",
            "Connect a replica, or set NOTIFIER_DURABILITY=fsync.",
        )  # fmt: skip
    elif wanted == "fsync" and (version[:2] < _WAITAOF[kind] or info.get("aof_enabled") != "1"):
        yield error(
            "NOTIFIER_DURABILITY", "fsync, which this server can't do", "Publishing is refused at the start.",
            "Use Redis 7.2 or later or Valkey, with appendonly yes; or set NOTIFIER_DURABILITY=memory.",
        )  # fmt: skip
    elif wanted == "memory" and replicas:
        yield ok("NOTIFIER_DURABILITY", f"memory, {replicas} connected: a failover may lose the last moment")
    else:
        yield ok(
            "NOTIFIER_DURABILITY", f"{wanted}, {replicas or 'no'} replica{'s' * (replicas != 1)} connected"
        )


def _number(info: Info, name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isdigit() else 0


def _size(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024  # type: ignore[assignment]  # shown, not counted
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
