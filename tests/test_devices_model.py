"""Whose device it is, against a model: recipients register, leave, are put, patched, imported and deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from notifier.broker.connection import Client, connect
from notifier.channel import device_key
from notifier.event import FcmDevice, parse_recipient
from notifier.keys import Keys
from notifier.recipients import Devices, Import, Recipients, Suppressions, import_lines
from notifier.recipients.profile import patched

KEYS = Keys(partitions=3)
PEOPLE = [f"u{i}" for i in range(4)]
PHONES = [FcmDevice(kind="fcm", token=f"telephone-{i}") for i in range(3)]

person = st.sampled_from(PEOPLE)
phone = st.sampled_from(range(len(PHONES)))
phones = st.lists(phone, unique=True)


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block


class Owning(RuleBasedStateMachine):
    """`owners` is who registered each telephone last; `order` the telephones of each profile; None is no
    profile."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.client: Client = self.loop.run_until_complete(self._connect())
        self.recipients = Recipients(self.client, KEYS)
        self.devices = Devices(self.recipients, Suppressions(self.client, KEYS), ["push"])
        self.profiles: dict[str, set[int] | None] = dict.fromkeys(PEOPLE)

    async def _connect(self) -> Client:
        with redis.Redis.from_url(self.url) as server:
            server.flushall()
        return connect(self.url)

    def teardown(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.close()

    def _has(self, who: str, wanted: set[int]) -> None:
        """`who` has these now; what is new to them, nobody else has any more."""
        new = wanted - (self.profiles[who] or set())
        self.profiles = {
            name: held if held is None or name == who else held - new for name, held in self.profiles.items()
        }
        self.profiles[who] = wanted

    @rule(who=person, number=phone)
    def register(self, who: str, number: int) -> None:
        before = self.profiles[who] or set()
        is_new = self.loop.run_until_complete(self.devices.add(who, PHONES[number]))
        assert is_new == (number not in before)
        self._has(who, before | {number})

    @rule(who=person, number=phone)
    def leave(self, who: str, number: int) -> None:
        before = self.profiles[who]
        was_there = self.loop.run_until_complete(self.devices.remove(who, device_key(PHONES[number])))
        assert was_there == (before is not None and number in before)
        if before is not None:
            self.profiles[who] = before - {number}

    @rule(who=person, numbers=phones)
    def put(self, who: str, numbers: list[int]) -> None:
        profile = {"id": who, "devices": [PHONES[number].model_dump() for number in numbers]}
        is_new = self.loop.run_until_complete(self.recipients.put(parse_recipient(profile)))
        assert is_new == (self.profiles[who] is None)
        self._has(who, set(numbers))

    @rule(who=person, numbers=phones)
    def patch(self, who: str, numbers: list[int]) -> None:
        if self.profiles[who] is None:
            return
        patch = {"devices": [PHONES[number].model_dump() for number in numbers] or None}
        self.loop.run_until_complete(
            self.recipients.change(who, lambda stored: stored and patched(stored, who, patch))
        )
        self._has(who, set(numbers))

    @rule(shares=st.dictionaries(person, phones, min_size=1))
    def import_all(self, shares: dict[str, list[int]]) -> None:
        taken: set[int] = set()
        for who, numbers in shares.items():  # who has what twice in one import is another story
            shares[who] = [number for number in numbers if number not in taken]
            taken |= set(numbers)
        lines = [
            json.dumps({"id": who, "devices": [PHONES[number].model_dump() for number in numbers]})
            for who, numbers in shares.items()
        ]
        report = Import()
        block = "\n".join(lines).encode()
        self.loop.run_until_complete(import_lines(self.recipients, _once(block), report))
        assert report.refused == 0
        for who, numbers in shares.items():
            self._has(who, set(numbers))

    @rule(who=person)
    def delete(self, who: str) -> None:
        assert self.loop.run_until_complete(self.recipients.delete(who)) == (self.profiles[who] is not None)
        self.profiles[who] = None

    @invariant()
    def profiles_and_registrations_are_those_of_the_model(self) -> None:
        stored = self.loop.run_until_complete(self.recipients.get_many(PEOPLE))
        numbers = {device_key(one): number for number, one in enumerate(PHONES)}
        for who, recipient in zip(PEOPLE, stored, strict=True):
            held = None if recipient is None else {numbers[device_key(one)] for one in recipient.devices}
            assert held == self.profiles[who]
        with redis.Redis.from_url(self.url) as server:
            written = [server.smembers(key) for key in server.scan_iter(KEYS.device("*"))]
        owners = [who.encode() for who, held in self.profiles.items() for _ in held or ()]
        assert sorted(owners) == sorted(name for names in written for name in names)  # type: ignore[union-attr]
        assert all(len(names) == 1 for names in written)  # type: ignore[arg-type]


@pytest.mark.slow
def test_each_device_has_one_owner_the_last_who_registered_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Owning, "url", redis_url)
    machine = Owning.TestCase
    machine.settings = settings(
        max_examples=25,
        stateful_step_count=25,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    machine("runTest").runTest()
