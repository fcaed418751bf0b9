"""The inbox of each recipient: exactly-once adds, marks, counts, and pages that stay put.

All keys of an inbox begin with `Keys.inbox(id)`, so they share the hash tag of the recipient's
partition. What follows the last colon is one of:

    :entries           hash   entry id -> the entry, JSON as `encode_entry` makes it
    :states            hash   entry id -> "created seen read archived" (ms each; 0: not)
    :unseen            zset   not seen        members are the time of creation in 15 digits and
    :seen              zset   seen, not read  the entry id, all with score 0: the order of the
    :read              zset   read            bytes is the order in time, and a cursor is exact
    :archived_unseen   zset   the same three, of what is archived
    :archived_seen     zset
    :archived_read     zset
    :gone              zset   entry id -> number: the last ids that fell out
    :changes           stream what changed, for whoever listens; also the name of a sharded channel

An entry stands in exactly one of the six sets, so that counts are their sizes and can't drift. Every
change is one script and every read is one round trip. Adding costs O(log n), a page of p entries
O(p + log n), a bulk mark O(m log n) for m entries marked.

An id is added once: a second add changes nothing while the entry is stored, read or archived or not,
and as long as its id is among the last `limit` that fell out.

Every change adds one record to `:changes`, in the same script, and publishes the record's id on the channel
of that name. A record's fields are pairs of what happened and to which entry:

    add  <entry id>    was added
    mark <entry id>    has another state; once for each of up to 50 entries that a bulk mark changed
    many               a bulk mark changed more
    gone               the inbox was deleted, and all records before this one

What changes nothing leaves no record. The stream keeps the last 200 or some more, until 24 hours after the
latest. It is a hint where to look, and `notifier.live` reads it; the entries are what counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from notifier.broker.connection import Client
from notifier.broker.scripts import Call, run, run_all, script
from notifier.channel import InboxEntry
from notifier.errors import InvalidInput
from notifier.keys import Keys

Status = Literal["all", "unseen", "unread", "read"]
"""What has been done with an entry; unseen entries are unread too."""

Archived = Literal["exclude", "include", "only"]

Mark = Literal["seen", "read", "unread", "archived", "unarchived"]
"""Reading implies seeing. Marking as unread leaves it seen."""

DEFAULT_LIMIT: Final = 1_000
MAX_PAGE_SIZE: Final = 100

_LEVELS: Final[Mapping[str, tuple[str, ...]]] = {
    "all": ("unseen", "seen", "read"),
    "unseen": ("unseen",),
    "unread": ("unseen", "seen"),
    "read": ("read",),
}
_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "exclude": ("",),
    "include": ("", "archived_"),
    "only": ("archived_",),
}
_PARTS: Final = ("entries", "states", "gone", *(p + s for p in ("", "archived_") for s in _LEVELS["all"]))
_MAX_MS: Final = 10**15 - 2  # 15 digits, and one more can still be named as an end


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry and when it was first marked: Unix milliseconds of the server's clock, or None."""

    entry: InboxEntry
    seen_ms: int | None
    read_ms: int | None
    archived_ms: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the entries that are not archived; whatever is unseen is unread too."""

    total: int
    unread: int
    unseen: int


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first. `after` is the cursor of the next page, or None at the end."""

    entries: tuple[StoredEntry, ...]
    counts: Counts
    after: str | None


def encode_entry(entry: InboxEntry) -> bytes:
    """The entry as compact JSON in UTF-8; what it does not have is left out."""
    fields: dict[str, Any] = {"id": entry.id, "type": entry.type, "title": entry.title, "body": entry.body}
    if entry.url is not None:
        fields["url"] = entry.url
    if entry.actor is not None:
        fields["actor"] = dict(entry.actor)
    if entry.data:
        fields["data"] = dict(entry.data)
    fields["created_ms"] = entry.created_ms
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def decode_entry(source: bytes) -> InboxEntry:
    """The entry that `encode_entry` encoded."""
    fields = json.loads(source)
    return InboxEntry(
        id=fields["id"],
        type=fields["type"],
        title=fields["title"],
        body=fields["body"],
        url=fields.get("url"),
        actor=fields.get("actor"),
        data=fields.get("data", {}),
        created_ms=fields["created_ms"],
    )


def decode_state(state: bytes) -> tuple[int | None, int | None, int | None]:
    """When the entry was seen, read and archived, of a value of `:states`."""
    _, seen, read, archived = map(int, state.split())
    return seen or None, read or None, archived or None


def decode_counts(sizes: Sequence[int]) -> Counts:
    """Of how many are unseen, seen but not read, and read."""
    unseen, seen, read = sizes
    return Counts(total=unseen + seen + read, unread=unseen + seen, unseen=unseen)


def inbox_keys(keys: Keys, recipient_id: str) -> Sequence[str]:
    """Every key that the recipient's inbox can have, all in one slot."""
    prefix = keys.inbox(recipient_id)
    return [f"{prefix}:{part}" for part in (*_PARTS, "changes")]


class Inbox:
    """The inboxes of all recipients. `limit` is how many entries each keeps: the newest.

    All methods raise BrokerError. An unknown recipient has an empty inbox.
    """

    def __init__(self, client: Client, keys: Keys, *, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise InvalidInput("limit", "must be at least 1")
        self._client = client
        self._keys = keys
        self._limit = limit

    async def add(self, recipient_id: str, entry: InboxEntry) -> bool:
        """Whether it was added: False when the inbox knows the id already.

        An entry older than all of a full inbox counts as added, and falls out at once.
        Raises InvalidInput when `created_ms` is no time.
        """
        if not 0 <= entry.created_ms <= _MAX_MS:
            raise InvalidInput("created_ms", "is not a time in Unix milliseconds")
        args = (entry.id, entry.created_ms, encode_entry(entry), self._limit)
        return bool(await self._run("inbox_add", recipient_id, args))

    async def list(
        self,
        recipient_id: str,
        *,
        status: Status = "all",
        archived: Archived = "exclude",
        after: str | None = None,
        page_size: int = 20,
    ) -> Page:
        """A page, newest first, of at most `page_size` (1..100) entries.

        `after` is the cursor of the page before. It names a place in time, so nothing appears twice
        or is skipped because entries arrived or were marked since. Raises InvalidInput, which names
        the parameter.
        """
        sets = _sets(status, archived)
        if not 1 <= page_size <= MAX_PAGE_SIZE:
            raise InvalidInput("page_size", f"must be 1 to {MAX_PAGE_SIZE}")
        start = b"+" if after is None else b"(" + _member_of(after)
        sizes, more, *found = await self._run("inbox_list", recipient_id, (page_size, start, *sets))
        rows = list(zip(found[::3], found[1::3], found[2::3], strict=True))
        return Page(
            entries=tuple(StoredEntry(decode_entry(entry), *decode_state(state)) for _, entry, state in rows),
            counts=decode_counts(sizes),
            after=_cursor_of(rows[-1][0]) if more else None,
        )

    async def counts(self, recipient_id: str) -> Counts:
        return decode_counts(await self._run("inbox_counts", recipient_id, ()))

    async def mark(self, recipient_id: str, entry_id: str, mark: Mark) -> Counts | None:
        """The new counts, or None when there is no such entry. Marking twice changes nothing."""
        sizes = await self._run("inbox_mark", recipient_id, (entry_id, _known("mark", mark, Mark)))
        return None if sizes is None else decode_counts(sizes)

    async def mark_some(self, recipient_id: str, entry_ids: Sequence[str], mark: Mark) -> Counts:
        """Marks these entries, passes over those that are not there, and returns the new counts."""
        key = [self._keys.inbox(recipient_id)]
        named = _known("mark", mark, Mark)
        marks = [Call(script("inbox_mark"), key, (entry_id, named)) for entry_id in entry_ids]
        replies = await run_all(self._client, [*marks, Call(script("inbox_counts"), key, ())])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return decode_counts(replies[-1])

    async def mark_all(
        self,
        recipient_id: str,
        mark: Mark,
        *,
        status: Status = "all",
        archived: Archived | None = None,
        until_ms: int | None = None,
    ) -> Counts:
        """Mark what the filter selects, in one step; returns the new counts.

        `until_ms` (Unix milliseconds) leaves out what was created later, such as what came after the
        recipient last looked. Without `archived`, "unarchived" is for what is archived and any other
        mark for what is not. Raises InvalidInput.
        """
        chosen = archived or ("only" if _known("mark", mark, Mark) == "unarchived" else "exclude")
        sets = _sets(status, chosen)
        if until_ms is not None and not 0 <= until_ms <= _MAX_MS:
            raise InvalidInput("until_ms", "is not a time in Unix milliseconds")
        end = "+" if until_ms is None else f"({until_ms + 1:015d}"
        return decode_counts(await self._run("inbox_mark_all", recipient_id, (mark, end, *sets)))

    async def delete(self, recipient_id: str) -> bool:
        """Remove the whole inbox, and the memory of what was in it. Whether there was anything.

        What is left for 24 hours is one record that it is gone.
        """
        return bool(await self._run("inbox_delete", recipient_id, _PARTS))

    async def _run(self, name: str, recipient_id: str, args: Sequence[str | bytes | int]) -> Any:
        return await run(self._client, Call(script(name), [self._keys.inbox(recipient_id)], args))


def _known(field: str, value: str, literal: Any) -> str:
    if value not in get_args(literal):
        raise InvalidInput(field, f"must be one of {', '.join(get_args(literal))}")
    return value


def _sets(status: str, archived: str) -> Sequence[str]:
    levels = _LEVELS[_known("status", status, Status)]
    return [p + level for p in _PREFIXES[_known("archived", archived, Archived)] for level in levels]


def _cursor_of(member: bytes) -> str:
    return base64.urlsafe_b64encode(member).rstrip(b"=").decode()


def _member_of(cursor: str) -> bytes:
    try:
        member = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        member = b""
    if not re.match(rb"[0-9]{15}.", member, re.DOTALL):
        raise InvalidInput("after", "is not a cursor of an earlier page")
    return member
