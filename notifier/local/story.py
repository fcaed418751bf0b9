"""What `notifier demo` tells, as data: who there is, what is published, and what must come of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

Tried = Literal["delivered", "parked", "dead-lettered", "dead", "expired"]
"""How one attempt ended, in the worker's own words."""


class Key(NamedTuple):
    """One notification on one channel; a recipient with two devices has two deliveries of it."""

    event: str
    recipient: str
    channel: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come of it: each attempt in turn, and how often it arrives on the far side."""

    key: Key
    trail: tuple[Tried, ...]
    arrivals: int


@dataclass(frozen=True, slots=True)
class Person:
    id: str
    name: str
    locale: str
    time_zone: str
    devices: int = 1

    @property
    def email(self) -> str:
        return f"{self.id}@example.com"


@dataclass(frozen=True, slots=True)
class Published:
    """An event as a producer sends it, and what the closing table calls it."""

    event: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.event["id"])

    @property
    def recipients(self) -> tuple[str, ...]:
        return tuple(self.event.get("recipients") or (self.event["recipient"],))


ADA: Final = Person("ada", "Ada Lovelace", "en-GB", "Europe/London")
JAN: Final = Person("jan", "Jan Becker", "de", "Europe/Berlin", devices=2)
MIA: Final = Person("mia", "Mia Rossi", "en-US", "America/New_York")
ROSA: Final = Person("rosa", "Rosa Díaz", "en", "Europe/Madrid")
SAM: Final = Person("sam", "Sam Okoro", "en", "Africa/Lagos")
PEOPLE: Final = (ADA, JAN, MIA, ROSA, SAM)
ADMIN: Final = "ops@example.com"

BUSY: Final = ("451 4.7.1 busy", "250 2.1.5 ok")
"""What rosa's mailbox answers, in turn."""
GONE: Final = "550 5.1.1 no such mailbox"
"""What sam's mailbox answers, always."""

CHANNELS: Final = ("email", "push", "in_app")
BREAKS: Final = "order_placed/email.jinja"

_APP = "https://app.example.com"


def _published(id_: str, type_: str, to: Person | tuple[Person, ...], actor: str, **data: Any) -> Published:
    event: dict[str, Any] = {"id": id_, "type": type_, "data": data}
    if actor:
        event["actor"] = {"id": actor.partition(" ")[0].lower(), "name": actor}
    if isinstance(to, Person):
        event["recipient"] = to.id
    else:
        event["recipients"] = [person.id for person in to]
    return Published(event)


def _like(id_: str, to: Person) -> Published:
    url = f"{_APP}/photos/p-311"
    return _published(
        id_, "like", to, "Grace Hopper", photo_id="p-311", photo_title="Morning at the harbour", url=url
    )


def _order(id_: str, to: Person, number: str) -> Published:
    items = [{"name": "Walnut desk lamp", "quantity": 1, "price": 89.0}]
    return _published(
        id_, "order_placed", to, "",
        order_id=number, items=items, total=89.0, currency="EUR", url=f"{_APP}/orders/{number}",
    )  # fmt: skip


LIKE: Final = _like("like", JAN)
EACH_TYPE: Final = (
    LIKE,
    _published(
        "direct_message", "direct_message", ADA, "Jan Becker",
        preview="Are you still up for Thursday?", conversation_id="c-90", url=f"{_APP}/messages/c-90",
    ),
    _published("friend_request", "friend_request", MIA, "Ada Lovelace", url=f"{_APP}/friends/requests"),
    _order("order_placed", ADA, "10482"),
    _published(
        "video_ready", "video_ready", MIA, "",
        video_id="v-620", title="Sailing home", duration_s=272, url=f"{_APP}/videos/v-620",
    ),
    _published(
        "course_launched", "course_launched", (ADA, JAN), "",
        course_id="c-12", title="Natural light", starts_at="2030-04-14T17:00:00Z",
        teacher="Dorothea Lange", url=f"{_APP}/courses/c-12",
    ),
)  # fmt: skip
TO_BUSY: Final = _like("like-busy", ROSA)
TO_GONE: Final = _like("like-gone", SAM)
UNRENDERABLE: Final = _order("order-broken", ADA, "10483")
ALERTS: Final = 2
"""One about sam's mail, then one about ada's order."""

DEAD: Final[Mapping[str, int]] = {"email": 1}
"""What is dead at the end, by queue: sam's mail. Everything else has been delivered."""


def alert(number: int) -> str:
    """What the alerts are called here, in the order in which they come; their ids are not known before."""
    return f"alert-{number}"


def typo(template: str) -> str:
    """The template with a name in its subject that no event has. Raises ValueError if it has no subject."""
    head, block, rest = template.partition("{% block subject %}")
    if not block:
        raise ValueError("has no block subject")
    return f"{head}{block}{{{{ data.order_nr }}}} {rest}"


def expectations() -> tuple[Expected, ...]:
    """All that must happen. Anything else, or anything more, makes the demo fail."""
    return tuple(_expectations())


def _expectations() -> Iterator[Expected]:
    people = {person.id: person for person in PEOPLE}
    special: Mapping[Key, tuple[tuple[Tried, ...], int]] = {
        Key(TO_BUSY.id, ROSA.id, "email"): (("parked", "delivered"), 1),
        Key(TO_GONE.id, SAM.id, "email"): (("dead-lettered", "dead"), 0),
        # A redriven delivery starts afresh, with the templates of that time.
        Key(UNRENDERABLE.id, ADA.id, "email"): (("dead-lettered", "dead", "delivered"), 1),
    }
    for published in (*EACH_TYPE, TO_BUSY, TO_GONE, UNRENDERABLE):
        for recipient in published.recipients:
            for channel in CHANNELS:
                key = Key(published.id, recipient, channel)
                times = people[recipient].devices if channel == "push" else 1
                once: tuple[Tried, ...] = ("delivered",)
                trail, arrivals = special.get(key, (once * times, times))
                yield Expected(key, trail, arrivals)
    for number in range(1, ALERTS + 1):
        for channel in ("email", "in_app"):  # the type of alerts has no template for push
            yield Expected(Key(alert(number), ADMIN, channel), ("delivered",), 1)
