"""Who is there from the beginning in `notifier dev`, and what to publish for them."""

from __future__ import annotations

import json
from typing import Any, Final

from notifier.errors import TemplateError
from notifier.event import Recipient, WebPushDevice
from notifier.recipients import Recipients
from notifier.rendering import TemplateFolder, sample_of

SEEDED: Final = (
    Recipient(
        id="ada", name="Ada Lovelace", email="ada@example.com", locale="en-GB", time_zone="Europe/London"
    ),
    Recipient(id="bob", name="Bob Meyer", email="bob@example.com", locale="de", time_zone="Europe/Berlin"),
)


async def seed(recipients: Recipients, person: Recipient, device: WebPushDevice) -> None:
    """Stores the profile with this device of our push service.

    One that is stored already keeps what it has; only devices of our push service are replaced, since they
    may be of another port, or of keys that have been removed.
    """
    stored = await recipients.get(person.id)
    if stored is None:
        await recipients.put(person.model_copy(update={"devices": (device,)}))
        return
    others = tuple(known for known in stored.devices if not _is_of_this_machine(known))
    if len(others) < len(stored.devices) and device not in stored.devices:
        await recipients.put(stored.model_copy(update={"devices": (*others, device)}))


def _is_of_this_machine(device: object) -> bool:
    return isinstance(device, WebPushDevice) and device.endpoint.startswith("http://127.0.0.1:")


def example(templates: TemplateFolder) -> str:
    """The shortest of the samples as a line of JSON, for the first of those who are there."""
    found = []
    for event_type in templates.catalogue.kinds:
        try:
            sample = sample_of(templates, event_type)
        except TemplateError:
            continue  # there are others; `notifier templates check` tells of it
        event: dict[str, Any] = {"type": event_type, "recipient": SEEDED[0].id}
        if sample.actor:
            event["actor"] = sample.actor.model_dump(exclude_none=True)
        event["data"] = sample.data
        found.append(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
    without_sample = json.dumps(
        {"type": next(iter(templates.catalogue.kinds), "like"), "recipient": SEEDED[0].id}
    )
    return min(found, key=len, default=without_sample)
