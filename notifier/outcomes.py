"""What a channel returned or raised, made fit for the server, the logs and the traces: a channel is somebody
else's code, and whatever is wrong with its words must not end the worker that wants to write them down."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from notifier.channel import DeliveryError, InboxEntry, Sent

_LONGEST: Final = 2_000  # characters; those who write them down keep fewer
_LATEST_MS: Final = 2**53  # what a script of the server can still tell apart


def usable_sent(returned: object) -> Sent:
    """What `send` returned, with words that can be encoded. Raises TypeError when nothing was delivered by
    it: it is no `Sent`, or its inbox entry can't be stored."""
    if not isinstance(returned, Sent):
        raise TypeError(f"send returned {type(returned).__name__}, not Sent")
    if returned.inbox is not None:
        _check(returned.inbox)
    if returned.answer == "":  # as with most channels
        return returned
    answer = words(returned.answer)
    return returned if answer is returned.answer else replace(returned, answer=answer)


def _check(entry: object) -> None:
    if not isinstance(entry, InboxEntry):
        raise TypeError(f"inbox is {type(entry).__name__}, not InboxEntry")
    if not isinstance(entry.id, str):
        raise TypeError(f"the inbox entry's id is {type(entry.id).__name__}, not text")
    at: object = entry.created_ms
    if not isinstance(at, int) or not 0 <= at < _LATEST_MS:
        raise TypeError("the inbox entry's created_ms is not a time in milliseconds")


def usable_failure(raised: DeliveryError) -> DeliveryError:
    """The same exception, with words that can be encoded, and a `retry_after` that is positive or None."""
    raised.reason = words(getattr(raised, "reason", raised))  # a class of its own may not have called ours
    raised.answer = words(getattr(raised, "answer", ""))
    asked = getattr(raised, "retry_after", None)
    is_seconds = isinstance(asked, int | float) and asked > 0  # which NaN is not
    if asked is not None and not is_seconds:
        raised.retry_after = None  # type: ignore[attr-defined]
    return raised


def words(said: object) -> str:
    """Text of at most 2,000 characters that can be encoded as UTF-8; of None it is empty. Never raises."""
    if type(said) is str and len(said) <= _LONGEST and said.isascii():
        return said
    if said is None:
        return ""
    if isinstance(said, bytes):
        text = said[:_LONGEST].decode(errors="replace")
    else:
        try:
            text = str(said)
        except Exception:  # noqa: BLE001 - what has no words is told by its class
            text = f"a {type(said).__name__} without words"
    return text[:_LONGEST].encode(errors="replace").decode()
