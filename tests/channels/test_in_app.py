"""The in-app channel is pure: what it makes of a delivery."""

from __future__ import annotations

import pytest

from channels.in_app import open_channel, safe_link
from notifier.channel import Address, Delivery, InboxEntry, Sent
from notifier.event import Recipient, parse_event


def delivery(**fields: object) -> Delivery:
    event = parse_event({"id": "e1", "type": "like", "recipient": "bo", **fields})
    body, [to] = event.encode()
    return Delivery.of(
        "in_app", event=body, event_id=event.id, event_type=event.type, to=to.decode(), key="inbox",
        accepted_ms=1_700_000_000_000,
    )  # fmt: skip


def test_everybody_has_one_inbox() -> None:
    channel = open_channel({})
    assert channel.name == "in_app"
    assert channel.addresses(Recipient(id="bo")) == (Address(key="inbox", value=""),)


def test_title_and_body_are_required_and_the_link_is_not() -> None:
    blocks = {block.name: (block.kind, block.required) for block in open_channel({}).blocks}
    assert blocks == {"title": ("line", True), "body": ("text", True), "url": ("line", False)}


async def test_an_entry_has_what_was_rendered_and_what_the_event_said() -> None:
    sent = await open_channel({}).send(
        one := delivery(actor={"id": "ada", "name": "Ada", "url": "/u/ada"}, data={"photo": {"id": 7}}),
        {"title": "Ada liked it", "body": "Look", "url": "/photos/7"},
    )
    assert sent == Sent(
        inbox=InboxEntry(
            id=one.id,
            type="like",
            title="Ada liked it",
            body="Look",
            url="/photos/7",
            actor={"id": "ada", "name": "Ada", "url": "/u/ada"},
            data={"photo": {"id": 7}},
            created_ms=1_700_000_000_000,
        )
    )


async def test_a_bare_event_makes_a_bare_entry_the_same_at_every_try() -> None:
    channel, content = open_channel({}), {"title": "T", "body": "B"}
    first, second = await channel.send(delivery(), content), await channel.send(delivery(), content)
    assert first.inbox is not None
    assert first.inbox == second.inbox
    assert (first.inbox.url, first.inbox.actor, first.inbox.data) == (None, None, {})


async def test_links_of_the_actor_that_could_do_harm_are_left_out() -> None:
    actor = {"id": "eve", "url": "javascript:alert(1)", "image": "https://img.example/e.png"}
    sent = await open_channel({}).send(delivery(actor=actor), {"title": "T", "body": "B", "url": "data:,x"})
    assert sent.inbox is not None
    assert sent.inbox.actor == {"id": "eve", "image": "https://img.example/e.png"}
    assert sent.inbox.url is None


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a?b=c#d",
        "http://localhost:8000/",
        "HTTPS://EXAMPLE.ORG",
        "https://[::1]/x",
        "/photos/7",
        "photos/7?at=10:30",
        "?page=2",
        "#top",
        "/a//b",
        "/größe",
    ],
)
def test_web_addresses_and_paths_are_kept(url: str) -> None:
    assert safe_link(f" {url}\n") == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "  ",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "java\tscript:alert(1)",
        "\x01javascript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "mailto:a@example.org",
        "ftp://example.org",
        "//evil.example/x",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "https:evil.example",
        "https:///evil.example",
        "http://[::1",
        "1x:y",
    ],
)
def test_any_other_link_is_dropped(url: str | None) -> None:
    assert safe_link(url) is None
