"""The templates that ship: finished, harmless and in every language that they promise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from notifier.catalogue import template_names
from notifier.channel import Block
from notifier.event import Event, Recipient
from notifier.rendering import TemplateFolder, check, sample_of

PATH = Path(__file__).parent.parent / "templates"
CHANNELS = {
    "email": (Block("subject", "line"), Block("body", "html"), Block("text", "text", derived_from="body")),
    "push": (Block("title", "line"), Block("body", "text"), Block("url", "line", required=False)),
    "in_app": (Block("title", "line"), Block("body", "text"), Block("url", "line", required=False)),
}
TYPES = (
    *("course_launched", "direct_message", "friend_request", "like", "order_placed"),
    *("system.dead_letters", "video_ready"),
)


@pytest.fixture(scope="module")
def folder() -> TemplateFolder:
    loaded = TemplateFolder(PATH, CHANNELS)
    loaded.load()
    return loaded


def versions() -> list[tuple[str, str, str | None]]:
    paths = [path.relative_to(PATH).as_posix() for path in PATH.rglob("*.jinja")]
    return [(name.event_type, name.channel, name.locale) for name in template_names(paths)]


def rendered(
    folder: TemplateFolder, kind: str, channel: str, locale: str | None, **changes: Any
) -> dict[str, str]:
    sample: Event = sample_of(folder, kind).model_copy(update=changes)
    recipient: Recipient = sample.everyone()[0].model_copy(update={"locale": locale or "en"})
    return dict(folder.render(channel, sample, recipient))


def test_the_check_finds_nothing(folder: TemplateFolder) -> None:
    assert check(folder) == []
    assert tuple(folder.catalogue.kinds) == TYPES


def test_what_must_arrive_is_mandatory(folder: TemplateFolder) -> None:
    kinds = folder.catalogue.kinds
    assert {kind.type for kind in kinds.values() if kind.mandatory} == {"order_placed", "system.dead_letters"}
    assert kinds["system.dead_letters"].channels == ("email", "in_app")
    assert kinds["like"].category == kinds["friend_request"].category == "social"


@pytest.mark.parametrize(("kind", "channel", "locale"), versions())
def test_every_version_renders_with_and_without_what_may_be_missing(
    folder: TemplateFolder, kind: str, channel: str, locale: str | None
) -> None:
    data = {name: value for name, value in sample_of(folder, kind).data.items() if name != "url"}
    full = rendered(folder, kind, channel, locale)
    bare = rendered(folder, kind, channel, locale, actor=None, data=data)
    for content in (full, bare):
        assert all(content[block.name] for block in CHANNELS[channel] if block.required)
        assert not re.search(r"\bNone\b|\{\{|\{%", "".join(content.values()))
    if channel != "email":
        assert full["url"] == sample_of(folder, kind).data.get("url", "")
        assert bare["url"] == ""


@pytest.mark.parametrize(("kind", "channel", "locale"), versions())
def test_every_version_survives_hostile_data(
    folder: TemplateFolder, kind: str, channel: str, locale: str | None
) -> None:
    evil = "\"'><script>alert(1)</script>\r\nBcc: x@example.com"
    data = {
        name: evil if isinstance(value, str) and name not in {"currency", "starts_at", "since"} else value
        for name, value in sample_of(folder, kind).data.items()
    }
    data["url"] = "javascript:alert(1)"
    actor = {"id": "a", "name": evil.partition("\r")[0], "url": "javascript:x", "image": "javascript:x"}
    actor_model = sample_of(folder, "like").actor
    assert actor_model is not None
    content = rendered(
        folder, kind, channel, locale, data=data, actor=type(actor_model).model_validate(actor)
    )
    for block in CHANNELS[channel]:
        if block.kind == "html":
            assert "<script" not in content[block.name]
        if block.kind == "line":
            assert "\n" not in content[block.name]
    assert "javascript:" not in "".join(content.values())


@pytest.mark.parametrize(("kind", "channel", "locale"), versions())
def test_long_titles_are_cut_in_lines(
    folder: TemplateFolder, kind: str, channel: str, locale: str | None
) -> None:
    sample = sample_of(folder, kind).data
    data = {name: "long " * 2_000 if name in {"title", "photo_title"} else sample[name] for name in sample}
    content = rendered(folder, kind, channel, locale, data=data)
    assert all(len(content[block.name]) < 250 for block in CHANNELS[channel] if block.kind == "line")


@pytest.mark.parametrize("kind", TYPES)
def test_the_text_part_says_the_same_and_has_the_links(folder: TemplateFolder, kind: str) -> None:
    content = rendered(folder, kind, "email", None)
    url = sample_of(folder, kind).data.get("url")
    assert url is None or f"<{url}>" in content["text"]
    assert url is None or f'href="{url}"' in content["body"]
    assert "<td" not in content["text"]
    assert "&" not in content["text"]
    assert "\n\n\n" not in content["text"]


@pytest.mark.parametrize("kind", TYPES)
def test_mails_have_what_clients_need(folder: TemplateFolder, kind: str) -> None:
    body = rendered(folder, kind, "email", None)["body"]
    assert body.startswith('<!DOCTYPE html>\n<html lang="en"')
    assert '<meta name="color-scheme" content="light dark">' in body
    assert "@media (prefers-color-scheme: dark)" in body
    assert '<td class="card" style="' in body, "Gmail and Outlook only trust styles in tags"
    assert len(body.encode()) < 40_000, "Gmail clips at 102 KB"
    assert "<img" not in body, "nothing has to be loaded"
    visible = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    unstyled = [tag for tag in re.findall(r"<(?:h1|p|td|th)\b[^>]*>", visible) if "style=" not in tag]
    assert unstyled == []


def test_a_german_mail_is_german(folder: TemplateFolder) -> None:
    content = rendered(folder, "like", "email", "de-AT")
    assert content["subject"] == "Ada Lovelace gefällt dein Foto „Morning at the harbour“"
    assert '<html lang="de-AT"' in content["body"]
    assert "Du bekommst diese Mail" in content["body"]
    assert rendered(folder, "like", "push", "de")["title"] == "Ada Lovelace gefällt dein Foto"
    assert rendered(folder, "like", "in_app", "fr")["title"] == "Ada Lovelace liked your photo"


def test_an_order_lists_items_and_money(folder: TemplateFolder) -> None:
    text = rendered(folder, "order_placed", "email", "en-GB")["text"]
    assert "Notebook, dotted, A5\n3 \u00d7 €9.50  €28.50\n" in text
    assert "Total  €159.50" in text


def test_dead_letters_say_what_to_type(folder: TemplateFolder) -> None:
    for channel in ("email", "in_app"):
        content = rendered(folder, "system.dead_letters", channel, None)
        assert "notifier dlq list --channel email" in "\n".join(content.values())
        assert "550 5.1.1 no such mailbox" in content.get("text", content["body"])
