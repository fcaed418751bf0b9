"""Removing all that is kept about a person: the one place that knows where it lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from notifier.broker.connection import Client
from notifier.event_traces import Traces
from notifier.keys import EVENTS, Keys
from notifier.operations.dead_letters import Selection, find
from notifier.operations.mending import Result, mend_all
from notifier.recipients import Profile, Recipients


async def forget(
    client: Client,
    keys: Keys,
    channels: Sequence[str],
    trace_retention: timedelta,
    recipient_id: str,
    check: Callable[[Profile | None], None] | None = None,
) -> bool:
    """Profile, devices, inbox, suppressed addresses, what is scheduled, dead letters and traces. Whether
    there was anything.

    What has to be looked for is looked for in bounded steps, each of which may be repeated; so a call that
    raised may be made again. `check` is given the profile first; what it raises is raised, and nothing is
    removed. What is in a queue or parked is delivered or given up; when that has happened, another call
    removes what came of it. Raises BrokerError, and InvalidRecipient for what can't be an id.
    """
    was_there = await Recipients(client, keys).delete(recipient_id, check)
    selection = Selection((EVENTS, *channels), recipient=recipient_id)
    discarded = await mend_all(client, keys, "discard", find(client, keys, selection))
    was_traced = await Traces(client, keys, trace_retention).forget(recipient_id)
    return was_there or discarded[Result.DONE] > 0 or was_traced
