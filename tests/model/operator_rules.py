"""What publishers and operators do, what time does, and what somebody does by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from notifier.broker.scripts import Call, run, script
from notifier.errors import BacklogFull
from notifier.keys import EVENTS, GROUP, dlq_of
from notifier.operations.dead_letters import STATES, LetterId
from notifier.operations.dead_letters import State as LetterState
from notifier.operations.mending import Action, mend
from notifier.recipients import suppression_field
from tests.model.holding import FAR_OFF_MS
from tests.model.machine import counted, pick
from tests.model.queue_model import Entry, Lease
from tests.model.things import ADDRESSES, BASES, KEYS, PEOPLE, event_thing
from tests.model.worker_rules import Act, WorkerRules, few_acts, picks
from tests.model.world import BACKLOG_LIMIT

FAR_OFF = datetime.fromtimestamp(FAR_OFF_MS / 1000, UTC)
LONG_PAST = datetime(2020, 1, 1, tzinfo=UTC)

people = st.lists(st.sampled_from(["ada", "ada", "ada", "bob", "cyd"]), min_size=1, max_size=3, unique=True)
numbers = st.sampled_from([0, 0, 0, 1])  # of a partition: most is done in one of them
ACCIDENTS = ("no scripts", "no group", "no lease", "crash of the server")
EVENT_IDS = 40
event_ids = st.integers(0, EVENT_IDS - 1)
when = st.sampled_from([None, None, None, LONG_PAST, FAR_OFF])

Source = tuple[list[str], int, datetime | None]


class PublishingRules(WorkerRules):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._published = 0

    @initialize(count=st.integers(0, 4), are_routed=st.booleans())
    @counted
    def something_is_there(self, count: int, are_routed: bool) -> None:
        self._publish([(["ada", "bob"], number, None) for number in range(count)])
        if are_routed:
            self.serve(self.workers[0], EVENTS, 0, "delivered")

    @rule(events=st.lists(st.tuples(people, event_ids, when), min_size=1, max_size=4), acts=few_acts)
    @counted
    def events_are_published(self, events: list[Source], acts: list[Act]) -> None:
        self._publish(events)
        self.work(acts)

    def _publish(self, events: list[Source]) -> None:
        """Ids are few, so that many have come before."""
        sources, refused, wanted = [], False, []
        full = [len(model.queues[EVENTS].entries) >= BACKLOG_LIMIT for model in self.models]
        for recipients, event_id, at in events:
            self._published += 1
            source: dict[str, Any] = {"id": f"e{event_id}", "type": "ping", "recipients": recipients}
            sources.append(
                source | {"data": {"n": self._published}} | ({"deliver_at": at.isoformat()} if at else {})
            )
            duplicates = []
            for recipient in recipients:
                number = KEYS.partition_of(recipient)
                refused |= full[number]
                thing = event_thing(self._published, recipient)
                if not full[number] and not self.models[number].publish(
                    thing, f"e{event_id}", due=at is not FAR_OFF
                ):
                    duplicates.append(recipient)
            wanted.append(sorted(duplicates))
        try:
            accepted = self.world.publisher.publish_many(sources)
        except BacklogFull:
            assert refused
        else:
            assert not refused
            assert [sorted(one.duplicates) for one in accepted] == wanted

    @precondition(lambda self: self.is_anything_waiting())
    @rule(number=numbers, acts=few_acts)
    @counted
    def time_passes(self, number: int, acts: list[Act]) -> None:
        self.let_time_pass(number)
        self.work(acts)


class OperatorRules(WorkerRules):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._known: list[tuple[LetterId, Entry]] = []

    @precondition(lambda self: self._letters())
    @rule(
        action=st.sampled_from(["redrive", "discard"]),
        chosen=st.lists(picks, min_size=1, max_size=3),
        acts=few_acts,
    )
    @counted
    def dead_letters_are_mended(self, action: Action, chosen: list[int], acts: list[Act]) -> None:
        """Also such as are gone already, or are being tried."""
        letters = self._letters()
        letters = [pick(letters, number) for number in chosen]
        first = letters[0][0]
        same = [one for one in letters if one[0].stream(KEYS) == first.stream(KEYS)]
        got = self.world.wait(mend(self.world.client, KEYS, action, [letter for letter, _ in same]))
        model = self.models[first.partition]
        assert got == model.mend(action, first.queue, first.state, [entry for _, entry in same])
        self._known = same[:1]
        self.work(acts)

    def _letters(self) -> list[tuple[LetterId, Entry]]:
        found: list[tuple[LetterId, Entry]] = []
        for number, (view, model) in enumerate(zip(self.views, self.models, strict=True)):
            for base in BASES:
                lies: dict[LetterState, tuple[list[str], list[Entry]]] = {
                    "dlq": (view.queues[dlq_of(base)].ids, model.queues[dlq_of(base)].entries),
                    "dead": (view.dead_ids[base], model.dead[base]),
                }
                for state in STATES:
                    for entry_id, entry in zip(*lies[state], strict=True):
                        if not self._in_hand_without_a_group(number, entry):
                            found.append((LetterId(base, number, state, entry_id), entry))
        return found + self._known

    def _in_hand_without_a_group(self, number: int, entry: Entry) -> bool:
        """When somebody has destroyed the group, nobody can see who is trying to route an event."""
        return not entry.holder and any(
            holding.is_rightful and entry in [waiting for _, waiting in holding.waiting]
            for holding in self.routers()
            if holding.number == number
        )


class Accidents(WorkerRules):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._restarts = 0

    def there_is_an_accident(self, what: str, queue: str, number: int) -> None:
        model = self.models[number].queues[queue]
        if what == "no scripts":
            self.world.command("SCRIPT", "FLUSH")
        elif what == "no group" and model.has_group:
            self.world.command("XGROUP", "DESTROY", KEYS.queue(queue, number), GROUP)
            model.destroy_group()
        elif what == "no lease":
            self.world.command("DEL", KEYS.lease(queue, number))
            model.lease = Lease()
            for entry in model.entries:  # who died of them is forgotten with it
                entry.deaths = 0
        elif not self._restarts:
            self.world.restart_server()
            self._restarts += 1


class RareRules(Accidents):
    @rule(
        what=st.sampled_from(["a window ends", "an address", "an alert", "a recipient goes", *ACCIDENTS]),
        recipient=st.sampled_from(PEOPLE),
        number=picks,
        acts=few_acts,
    )
    @counted
    def now_and_then(self, what: str, recipient: str, number: int, acts: list[Act]) -> None:
        if what == "a window ends":
            self._a_dedup_window_ends(recipient, number % EVENT_IDS)
        elif what == "an address":
            self._an_address_is_suppressed_or_used_again(recipient, *pick(ADDRESSES[recipient], number))
        elif what == "an alert":
            self._the_dead_are_alerted(pick(BASES, number))
        elif what == "a recipient goes":
            self._what_is_scheduled_is_dropped(recipient)
        else:
            self.there_is_an_accident(what, *pick(self.at_work(), number))
        self.work(acts)

    def _a_dedup_window_ends(self, recipient: str, event_id: int) -> None:
        number = KEYS.partition_of(recipient)
        self.world.command("HDEL", KEYS.seen(number, f"e{event_id}"), recipient)
        self.models[number].seen.discard((f"e{event_id}", recipient))

    def _an_address_is_suppressed_or_used_again(self, recipient: str, channel: str, key: str) -> None:
        number = KEYS.partition_of(recipient)
        field = suppression_field(channel, recipient, key)
        if field in self.models[number].suppressed:
            self.world.command("HDEL", KEYS.suppressed(number), field)
        else:
            self.world.command("HSET", KEYS.suppressed(number), field, "{}")
        self.models[number].suppressed ^= {field}

    def _the_dead_are_alerted(self, base: str) -> None:
        for number, view in enumerate(self.views):
            if count := view.unalerted.get(base, 0):
                self.world.command("HINCRBY", KEYS.unalerted(number), base, -count)
                self.models[number].unalerted[base] -= count

    def _what_is_scheduled_is_dropped(self, recipient: str) -> None:
        number = KEYS.partition_of(recipient)
        keys, cursor, dropped = (KEYS.scheduled(number), KEYS.scheduled_items(number)), b"0", 0
        while True:
            call = Call(script("recipient_unschedule"), keys, (cursor, 2, recipient))
            cursor, count = self.world.wait(run(self.world.line, call))
            dropped += count
            if cursor == b"0":
                break
        assert dropped == self.models[number].unschedule(recipient)
