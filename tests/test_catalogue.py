"""What the templates folder says of event types and their options."""

from __future__ import annotations

import pytest

from notifier.catalogue import Catalogue, EventKind, read_catalogue

CHANNELS = {"email": True, "push": True, "in_app": True}


def read(
    sources: dict[str, str], channels: dict[str, bool] = CHANNELS, previous: Catalogue | None = None
) -> tuple[Catalogue, list[str]]:
    catalogue, problems = read_catalogue(sources, channels, previous)
    return catalogue, [str(problem) for problem in problems]


def test_a_folder_with_templates_is_an_event_type() -> None:
    catalogue, problems = read({"like/in_app.jinja": "", "like/email.jinja": "", "like/sample.json": "{}"})
    assert catalogue.get("like") == EventKind("like", "like", False, ("email", "in_app"))
    assert catalogue.get("other") is None
    assert problems == []


def test_options_are_read() -> None:
    source = 'category = "social"\nmandatory = true\n'
    catalogue, problems = read({"user.joined/push.jinja": "", "user.joined/event.toml": source})
    assert catalogue.get("user.joined") == EventKind("user.joined", "social", True, ("push",))
    assert problems == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('[digest]\nby = "photo_id"', "like/event.toml: option digest is not known to this version"),
        ('[channel.email]\nafter = "15m"', "like/event.toml: option channel is not known to this version"),
        ('[[then]]\nwait = "2d"', "like/event.toml: option then is not known to this version"),
        ("mandatroy = true", "like/event.toml: option mandatroy is not known to this version"),
        ("category = 3", "like/event.toml: option category must be text, not int"),
        ('category = ""', "like/event.toml: option category must match [a-z][a-z0-9_.-]*"),
        ('mandatory = "yes"', "like/event.toml: option mandatory must be true or false, not str"),
        ("mandatory = 1", "like/event.toml: option mandatory must be true or false, not int"),
    ],
)
def test_an_option_that_can_not_be_kept_is_refused_by_name(source: str, message: str) -> None:
    catalogue, problems = read({"like/email.jinja": "", "like/event.toml": source})
    assert problems == [message]
    assert catalogue.get("like") is None
    assert str(catalogue.broken["like"]) == message


def test_broken_toml_names_the_line() -> None:
    _, problems = read({"like/email.jinja": "", "like/event.toml": "mandatory = true\ncategory =\n"})
    assert len(problems) == 1
    assert problems[0].startswith("like/event.toml:2: is not TOML")


def test_options_that_break_later_keep_the_last_good_ones() -> None:
    first, _ = read({"like/email.jinja": "", "like/event.toml": "mandatory = true"})
    second, problems = read({"like/email.jinja": "", "like/event.toml": "mandatory ="}, previous=first)
    assert second.get("like") == first.get("like")
    assert len(problems) == 1


def test_a_template_for_an_unknown_channel_is_a_problem_and_harms_nothing() -> None:
    catalogue, problems = read({"like/email.jinja": "", "like/sms.jinja": ""})
    assert problems == ["like/sms.jinja: channel sms is not configured"]
    assert catalogue.kinds["like"].channels == ("email",)


def test_a_language_alone_does_not_make_a_channel() -> None:
    catalogue, problems = read({"like/email.jinja": "", "like/push.de.jinja": ""})
    assert problems == ["like/push.de.jinja: push.jinja, the version for other locales, is missing"]
    assert catalogue.kinds["like"].channels == ("email",)


def test_a_channel_that_needs_no_template_is_used_for_every_type() -> None:
    catalogue, _ = read({"like/email.jinja": ""}, {"audit": False, "email": True})
    assert catalogue.kinds["like"].channels == ("audit", "email")


def test_an_event_type_may_have_options_and_no_template() -> None:
    catalogue, problems = read({"course_enrolled/event.toml": 'category = "courses"'})
    assert catalogue.kinds["course_enrolled"].channels == ()
    assert problems == []


def test_layouts_and_partials_are_no_event_types() -> None:
    sources = {
        "layouts/email.html.jinja": "",
        "_shared/button.jinja": "",
        "like/_part.jinja": "",
        "x.jinja": "",
    }
    catalogue, problems = read({**sources, "like/email.jinja": ""})
    assert list(catalogue.kinds) == ["like"]
    assert problems == []


@pytest.mark.parametrize("folder", ["Like", "1like", "like-it"])
def test_a_folder_that_can_not_be_a_type_is_a_problem(folder: str) -> None:
    catalogue, problems = read({f"{folder}/email.jinja": ""})
    assert problems == [f"{folder}: is not an event type: it must match [a-z][a-z0-9_.]*"]
    assert not catalogue.kinds


def test_a_folder_without_any_template_is_a_problem() -> None:
    _, problems = read({"like/sample.json": "{}"})
    assert problems == ["like: has no template, such as email.jinja"]
