"""The lanes of one worker against a model of plain lists: each message is handed out once, the oldest of its
lane, to one runner at a time, and lanes in the order in which they became ready."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from notifier.broker.entries import Message
from notifier.broker.leases import Lease
from notifier.broker.partition import Partition
from notifier.keys import Keys
from notifier.lanes import Lane, Lanes

PARTITIONS = [Partition(Keys(), "post", Lease(n, f"w1#{n}", time.monotonic() + 60)) for n in range(2)]

numbers = st.integers(0, 1)
names = st.sampled_from([b"ada/email", b"ada/phone", b"bob/email"])
picks = st.integers(0, 7)


@dataclass(eq=False)
class Known:
    """A lane as the model sees it; `taken` by a runner or waiting for one."""

    number: int
    name: bytes
    waiting: list[bytes]
    parked: bool = False
    behind: int = 0
    taken: bool = False


@dataclass
class Model:
    lanes: dict[tuple[int, bytes], Known] = field(default_factory=dict)
    ready: list[Known] = field(default_factory=list)


class LanesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes()
        self.model = Model()
        self.taken: list[tuple[Lane, Known]] = []
        self._numbers = itertools.count()

    def _messages(self, name: bytes, count: int) -> list[Message]:
        made = [Message(b"%d-0" % next(self._numbers), ()) for _ in range(count)]
        for message in made:
            message.lane = name
        return made

    @rule(number=numbers, name=names)
    def a_message_comes_from_the_stream(self, number: int, name: bytes) -> None:
        """To a parked lane it would not be given: it goes to the end of the list in the server."""
        known = self.model.lanes.get((number, name))
        if known is not None and known.parked:
            return
        [message] = self._messages(name, 1)
        self.lanes.append(PARTITIONS[number], message)
        if known is None:
            known = self.model.lanes[number, name] = Known(number, name, [])
            self.model.ready.append(known)
        known.waiting.append(message.id)

    @rule(number=numbers, name=names, count=st.integers(1, 3), behind=st.integers(0, 2))
    def a_parked_lane_is_due(self, number: int, name: bytes, count: int, behind: int) -> None:
        """It is not taken while something of that lane is in hand."""
        if (number, name) in self.model.lanes:
            return
        messages = self._messages(name, count)
        self.lanes.add_parked(PARTITIONS[number], name, messages, behind)
        known = Known(number, name, [m.id for m in messages], parked=True, behind=behind)
        self.model.lanes[number, name] = known
        self.model.ready.append(known)

    @rule()
    def a_runner_takes_a_lane(self) -> None:
        lane = self.lanes.take()
        if not self.model.ready:
            assert lane is None
            return
        known = self.model.ready.pop(0)
        known.taken = True
        assert lane is not None
        assert (lane.partition, lane.key) == (PARTITIONS[known.number], known.name)
        self.taken.append((lane, known))

    @precondition(lambda self: self.taken)
    @rule(which=picks)
    def the_first_message_is_dealt_with(self, which: int) -> None:
        lane, known = self.taken.pop(which % len(self.taken))
        self.lanes.next(lane)
        del known.waiting[0]
        known.taken = False
        if known.waiting:
            self.model.ready.append(known)
        else:
            del self.model.lanes[known.number, known.name]

    @precondition(lambda self: self.taken)
    @rule(which=picks)
    def the_lane_is_parked(self, which: int) -> None:
        lane, known = self.taken.pop(which % len(self.taken))
        lane.waiting.clear()
        self.lanes.remove(lane)
        del self.model.lanes[known.number, known.name]

    @rule(number=numbers)
    def a_partition_goes(self, number: int) -> None:
        """What runs then comes to nothing."""
        gone = self.lanes.drop(PARTITIONS[number])
        of = [known for (n, _), known in self.model.lanes.items() if n == number]
        assert sorted(lane.key for lane in gone) == sorted(known.name for known in of)
        for known in of:
            del self.model.lanes[number, known.name]
        self.model.ready = [known for known in self.model.ready if known.number != number]
        self.taken = [(lane, known) for lane, known in self.taken if known.number != number]

    @invariant()
    def every_lane_is_as_the_model_says(self) -> None:
        for number, partition in enumerate(PARTITIONS):
            for name in (b"ada/email", b"ada/phone", b"bob/email"):
                lane, known = self.lanes.find(partition, name), self.model.lanes.get((number, name))
                assert (lane is None) == (known is None)
                if lane is not None and known is not None:
                    assert [message.id for message in lane.waiting] == known.waiting
                    assert (lane.parked, lane.behind) == (known.parked, known.behind)


TestLanes = LanesMachine.TestCase
TestLanes.settings = settings(
    max_examples=1_000 if os.environ.get("NOTIFIER_SOAK") else 60,
    stateful_step_count=40,
    derandomize="CI" in os.environ,
    database=None,
    deadline=None,
)
