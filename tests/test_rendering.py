"""Compiling, rendering and reloading templates."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notifier.channel import Block
from notifier.errors import ConfigurationError, TemplateError
from notifier.event import Event, Recipient, parse_event
from notifier.rendering import TemplateFolder, check

CHANNELS = {
    "email": (Block("subject", "line"), Block("body", "html"), Block("text", "text", derived_from="body")),
    "push": (
        Block("title", "line", max_length=200),
        Block("body", "text"),
        Block("url", "line", required=False),
    ),
    "audit": (),
}
PUSH = "{% block title %}T{% endblock %}{% block body %}{{ data.x }}{% endblock %}"

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    moments = iter(range(1, 1_000))

    def write_file(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        # File systems with a coarse clock would give two quick writes the same time.
        os.utime(file, ns=(0, next(moments) * 1_000_000_000))

    return write_file


def load(path: Path) -> TemplateFolder:
    folder = TemplateFolder(path, CHANNELS)
    folder.load()
    return folder


def event(kind: str = "like", **fields: Any) -> Event:
    return parse_event({"id": "e1", "type": kind, "recipient": "u1", **fields})


def push_body(folder: TemplateFolder, **recipient: Any) -> str:
    return folder.render("push", event(data={"x": "v"}), Recipient(id="u1", **recipient))["body"]


def mail(tmp_path: Path, write: Write, body: str, subject: str = "S", **data: Any) -> dict[str, str]:
    write(
        "like/email.jinja",
        "{% block subject %}" + subject + "{% endblock %}\n{% block body %}" + body + "{% endblock %}",
    )
    folder = load(tmp_path)
    assert folder.problems == ()
    return dict(folder.render("email", event(data=data), Recipient(id="u1")))


def refused(tmp_path: Path, write: Write, body: str, **data: Any) -> str:
    write("like/push.jinja", "{% block title %}T{% endblock %}\n{% block body %}" + body + "{% endblock %}")
    folder = load(tmp_path)
    with pytest.raises(TemplateError) as caught:
        folder.render("push", event(data=data), Recipient(id="u1"))
    return str(caught.value)


# Injection


def test_html_in_names_and_data_is_escaped_in_html_and_plain_in_text(tmp_path: Path, write: Write) -> None:
    write(
        "like/email.jinja",
        "{% block subject %}{{ actor.name }}{% endblock %}"
        '{% block body %}<p title="{{ actor.name }}">{{ data.x }}</p>{% endblock %}',
    )
    evil = '"><script>alert(1)</script>'
    told = event(actor={"id": "a", "name": evil}, data={"x": "<b>&amp;"})
    content = load(tmp_path).render("email", told, Recipient(id="u1"))
    assert content["subject"] == evil
    assert "<script" not in content["body"]
    assert "&lt;b&gt;&amp;amp;" in content["body"]
    assert content["text"] == "<b>&amp;"


def test_a_line_block_can_not_carry_a_header(tmp_path: Path, write: Write) -> None:
    subject = mail(
        tmp_path,
        write,
        "x",
        "{{ data.x }}",
        x="a\r\nBcc: b@example.com\x00\u2028c\u202ed \N{FAMILY}\u200d\N{BOY}",
    )["subject"]
    assert subject == "a Bcc: b@example.com c d \N{FAMILY}\u200d\N{BOY}"


@pytest.mark.parametrize(
    "body",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'].mro() }}",
        "{{ event.__init__.__globals__ }}",
        "{{ range.__self__ }}",
        "{{ '{0.__class__}'.format(data) }}",
        "{{ data.get.__func__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% set _ = data.update({'x': 1}) %}",
        "{{ ('%s' | attr('format'))('a') | attr('__class__') }}",
    ],
)
def test_a_template_can_not_reach_into_python(tmp_path: Path, write: Write, body: str) -> None:
    assert refused(tmp_path, write, body, x="v").startswith("like/push.jinja:2: ")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "../like/push.jinja", "missing.jinja"])
def test_a_template_can_not_read_outside_of_the_folder(tmp_path: Path, write: Write, name: str) -> None:
    write("other/push.jinja", PUSH)
    reason = f"there is no template {name} in the folder"
    assert reason in refused(tmp_path, write, "{% include '" + name + "' %}")
    dynamic = refused(tmp_path, write, "{% include data.x %}", x=name)
    assert dynamic == f"like/push.jinja:2: {reason}"


@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:alert(1)",
        "java\tscript:x",
        "data:text/html,x",
    ],
)
def test_a_link_to_a_script_is_refused_and_safe_url_drops_it(
    tmp_path: Path, write: Write, target: str
) -> None:
    with pytest.raises(TemplateError, match="a link leads to"):
        mail(tmp_path, write, '<a class=x href="{{ data.x }}">y</a>', x=target)
    body = mail(tmp_path, write, '<a href="{{ data.x | safe_url }}">y</a>', x=target)["body"]
    assert body == '<a href="">y</a>'


def test_text_that_looks_like_a_link_harms_nobody(tmp_path: Path, write: Write) -> None:
    told = " <img src=x onerror=alert(1)> href=javascript:x"
    content = mail(tmp_path, write, '<p title="{{ data.x }}">{{ data.x }}</p>', x=told)
    assert "&lt;img src=x" in content["body"]
    assert content["text"] == told.strip()


def test_an_expression_in_a_tag_must_be_quoted(tmp_path: Path, write: Write) -> None:
    write(
        "like/email.jinja",
        "{% block subject %}S{% endblock %}\n{% block body %}<a href={{ data.x }}>y</a>{% endblock %}",
    )
    assert [str(p) for p in load(tmp_path).problems] == [
        "like/email.jinja:2: {{ data.x }} stands in a tag but not in quotes"
    ]


def test_a_script_in_the_url_of_a_push_is_refused(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", PUSH + "{% block url %}{{ data.url }}{% endblock %}")
    folder = load(tmp_path)
    for url in ("https://example.com/", "/photos/1", ""):
        assert folder.render("push", event(data={"x": 1, "url": url}), Recipient(id="u"))["url"] == url
    for url in ("javascript:x", "//evil.example", "/\\evil.example"):
        with pytest.raises(TemplateError, match="neither http, https nor a path"):
            folder.render("push", event(data={"x": 1, "url": url}), Recipient(id="u"))


# What a template does wrong


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("\n{{ data.missing }}", "like/push.jinja:3: missing is missing"),
        ("{{ data.x }}", "like/push.jinja:2: a value is null: test for it, or give a default"),
        ("{{ 'x'.upper }}", "like/push.jinja:2: a method is printed, not its result"),
        ("{{ 1 / 0 }}", "like/push.jinja:2: division by zero"),
        (
            "{{ data.n | money('euro') }}",
            "like/push.jinja:2: money: 'euro' is not a currency code such as EUR",
        ),
        ("{{ 'x' | date }}", "like/push.jinja:2: date: 'x' is not an ISO 8601 time"),
        ("  \n ", "like/push.jinja: block body is empty"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "like/push.jinja:2: calls itself without end"),
        ("{% for i in range(99999999) %}{% endfor %}", "like/push.jinja:2: a range of more than 10000"),
        ("{{ 'x' * 99999999 }}", "like/push.jinja:2: a repetition makes more than 262144 items"),
        ("{{ 9 ** 9999999 }}", "like/push.jinja:2: an exponent above 64"),
        (
            "{% for i in range(9999) %}{% for j in range(9999) %}xxxxxxxx{% endfor %}{% endfor %}",
            "like/push.jinja: makes more than 524288 characters",
        ),
    ],
)
def test_whatever_a_template_does_is_a_template_error(
    tmp_path: Path, write: Write, body: str, message: str
) -> None:
    assert refused(tmp_path, write, body, x=None, n=1) == message


NESTED = "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}"
ENDS = "{% endfor %}" * 3
TOO_OFTEN = "loops too often: more than 100,000 rounds"
TOO_LONG = "builds a text or list of more than 524288 characters or items"
TOO_WIDE = "a width, number of places or the like above"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (NESTED + ENDS + "x", TOO_OFTEN),
        (NESTED.replace("range(10000)", "data.rows") + ENDS + "x", TOO_OFTEN),
        ("{% for a in range(9999) %}{% for b in range(9999) if false %}" + ENDS[:24] + "x", TOO_OFTEN),
        (
            "{% for a in data.rows recursive %}{% if loop.depth < 3 %}{{ loop(data.rows) }}{% endif %}"
            + ENDS[:12],
            TOO_OFTEN,
        ),
        (
            "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
            TOO_OFTEN,
        ),
        ("{% for a in range(99) %}{{ range(9999) | map('string') | list | length }}{% endfor %}", TOO_OFTEN),
        ("{% for a in range(99999) if 'z' in data.rows %}{% endfor %}", "a range of more than 10000"),
        ("{% set s %}{% for a in range(9999) %}{{ data.long }}{% endfor %}{% endset %}x", "writes more than"),
        ("{% set a = 'x' * 200000 %}{% set b = a ~ a %}{% set c = b ~ b %}{{ c | length }}", TOO_LONG),
        ("{% set a = 'x' * 200000 %}{% set b = a + a %}{% set c = b + b %}{{ c | length }}", TOO_LONG),
        ("{{ [data.long] * 10000 }}", TOO_LONG),
        ("{{ ([data.long] * 10000) | string | length }}", TOO_LONG),
        ("{{ range(9999) | join(data.long) | length }}", TOO_LONG),
        ("{{ data.long.join(['a'] * 9999) | length }}", TOO_LONG),
        ("{{ data.long | replace('x', data.long) | length }}", TOO_LONG),
        ("{{ data.long.replace('', data.long) | length }}", TOO_LONG),
        ("{{ '%300000000s' | format('x') }}", TOO_WIDE),
        ("{{ '%300000000s' % 'x' }}", TOO_WIDE),
        ("{{ '%.300000000f' % 1 }}", TOO_WIDE),
        ("{{ '%*d' % (300000000, 1) }}", "a width of * in a format"),
        ("{{ '{:{}}'.format('x', 300000000) }}", TOO_WIDE),
        ("{{ '{a:>300000000}'.format_map({'a': 'x'}) }}", TOO_WIDE),
        ("{{ 'x'.ljust(10 ** 9) | length }}", TOO_WIDE),
        ("{{ 'x'.rjust(10 ** 9) | length }}", TOO_WIDE),
        ("{{ 'x'.center(10 ** 9) | length }}", TOO_WIDE),
        ("{{ 'x'.zfill(10 ** 9) | length }}", TOO_WIDE),
        ("{{ 'x'.expandtabs(10 ** 9) }}", "access to attribute 'expandtabs'"),
        ("{{ data.long.translate({120: data.long}) }}", "access to attribute 'translate'"),
        ("{{ 1.5 | round(10 ** 9, 'ceil') }}", TOO_WIDE),
        ("{{ data | tojson(indent=10 ** 9) }}", TOO_WIDE),
        ("{{ (((9 ** 64) ** 64) ** 64) ** 64 }}", "a number above 4096 bits"),
    ],
)
def test_a_template_can_not_eat_a_worker(tmp_path: Path, write: Write, body: str, reason: str) -> None:
    begun = time.thread_time()
    told = refused(tmp_path, write, body, rows=list(range(1000)), long="x" * 20_000)
    assert told.startswith("like/push.jinja:2: ")
    assert reason in told
    assert time.thread_time() - begun < 3


def test_a_rendering_has_a_limit_of_time(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.rendering.budget.MAX_SECONDS", 0.05)
    slow = "{% for a in range(10000) %}{% if 'z' in data.rows %}{% endif %}{% endfor %}x"
    told = refused(tmp_path, write, slow, rows=["y"] * 20_000)
    assert told == "like/push.jinja:2: takes more than 0.05 s"


def test_a_long_table_with_what_templates_need_is_rendered(tmp_path: Path, write: Write) -> None:
    body = (
        "<table>{% for row in data.rows %}<tr><td>{{ loop.index }}/{{ data.rows | length }}</td>"
        "<td>{{ '%05.1f' | format(row.price) }} {{ row.name.ljust(9) ~ '|' }}</td>"
        "<td>{{ '{:>4}'.format(row.name) }} {{ row.tags | map('upper') | join(', ') }}</td></tr>{% endfor %}"
        "</table>{{ data.rows | sum(attribute='price') }} {{ ', '.join(data.rows[0].tags) }}"
    )
    rows = [{"name": f"<{n}>", "price": 1.5, "tags": ["a", "b"]} for n in range(1000)]
    shown = mail(tmp_path, write, body, rows=rows)["body"]
    assert shown.count("<tr>") == 1000
    assert "<td>1000/1000</td><td>001.5 &lt;999&gt;    |</td>" in shown
    assert shown.endswith("</table>1500.0 a, b")
    assert "A, B" in shown


def test_a_block_that_is_too_long_is_refused(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", "{% block title %}{{ data.x }}{% endblock %}{% block body %}b{% endblock %}")
    folder = load(tmp_path)
    with pytest.raises(TemplateError, match="block title has 201 characters; the limit is 200"):
        folder.render("push", event(data={"x": "y" * 201}), Recipient(id="u1"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% block title %}", "like/push.jinja:1: Unexpected end of template"),
        (
            PUSH.replace("data.x", "data.x | nope").replace("{% block body", "\n{% block body"),
            "like/push.jinja:2: No filter named 'nope'",
        ),
        ("{% block title %}t{% endblock %}", "like/push.jinja: block body is missing"),
        (PUSH + "\n{% block boody %}{% endblock %}", "like/push.jinja:2: block boody is not known"),
        (PUSH + "\n{% block body %}{% endblock %}", "like/push.jinja:2: block body is there twice"),
        (
            PUSH.replace("{{ data.x }}", "{% for i in data %}" * 30 + "x" + "{% endfor %}" * 30),
            "like/push.jinja: does not compile: SyntaxError: too many statically nested blocks",
        ),
        (PUSH + "\n\nhello", "like/push.jinja:3: text outside of every block is never shown"),
        ("{% extends 'layouts/x.jinja' %}", "like/push.jinja:1: extends is not for event templates"),
        ("\n" + PUSH.replace("data.x", "atcor.name"), "like/push.jinja:2: atcor is not a variable"),
        (
            "{% block title %}{% block body %}{% endblock %}{% endblock %}",
            "like/push.jinja:1: block body stands inside of block title",
        ),
    ],
)
def test_a_template_that_can_not_work_says_so_when_it_is_loaded(
    tmp_path: Path, write: Write, source: str, message: str
) -> None:
    write("like/push.jinja", source)
    write("fine/push.jinja", PUSH)
    folder = load(tmp_path)
    assert len(folder.problems) == 1
    assert str(folder.problems[0]).startswith(message)
    with pytest.raises(TemplateError) as caught:
        folder.render("push", event(data={"x": 1}), Recipient(id="u1"))
    assert str(caught.value) == str(folder.problems[0])
    assert folder.render("push", event("fine", data={"x": 1}), Recipient(id="u1"))["body"] == "1"
    assert folder.catalogue.kinds["like"].channels == ("push", "audit")


def test_a_type_without_this_template_is_a_template_error(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", PUSH)
    with pytest.raises(TemplateError, match=r"^like/email\.jinja: does not exist$"):
        load(tmp_path).render("email", event(), Recipient(id="u1"))


def test_a_channel_without_blocks_renders_nothing(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", PUSH)
    assert load(tmp_path).render("audit", event(), Recipient(id="u1")) == {}


# What a template can do


def test_data_may_be_called_like_a_method(tmp_path: Path, write: Write) -> None:
    body = "{% for i in data.items %}{{ i.values }}{% endfor %}{{ data.get('no', '-') }}{{ data.copy }}"
    assert mail(tmp_path, write, body, items=[{"values": 1}, {"values": 2}], copy="c")["body"] == "12-c"


@pytest.mark.parametrize("field", ["items", "keys", "values", "get", "update", "pop", "copy"])
@pytest.mark.parametrize(
    "body",
    [
        "{% for i in data.FIELD %}{% endfor %}",
        "{{ data.FIELD }}",
        "{{ data['FIELD'] }}",
        "{{ data.FIELD.x }}",
        "{{ data.FIELD | length }}",
        "{{ data.inner.FIELD | join }}",
        "{{ [data] | map(attribute='FIELD') | join }}",
        "{% for k, v in data.FIELD | items %}{% endfor %}",
    ],
)
def test_a_missing_field_that_is_called_like_a_method_is_named(
    tmp_path: Path, write: Write, body: str, field: str
) -> None:
    with pytest.raises(TemplateError) as caught:
        mail(tmp_path, write, body.replace("FIELD", field), inner={})
    assert caught.value.reason == f"{field} is missing"


def test_a_missing_field_that_is_called_like_a_method_is_not_defined(tmp_path: Path, write: Write) -> None:
    body = "{{ data.items is defined }} {{ data.values | default('-') }}{{ '!' if data.get is defined }}"
    assert mail(tmp_path, write, body)["body"] == "False -"


def test_a_mapping_is_walked_through_by_filters_or_calls(tmp_path: Path, write: Write) -> None:
    body = (
        "{% for k, v in data.of | items %}{{ k }}{{ v }}{% endfor %} {{ (data.of | dictsort | first)[1] }}"
        "{% for k, v in data.of.items() %} {{ k }}{{ v }}{% endfor %} {{ data.of.keys() | join }}"
        " {{ data.of.values() | sum }} {{ data.of.get('c', '-') }}"
    )
    assert mail(tmp_path, write, body, of={"b": 1, "a": 2})["body"] == "b1a2 2 b1 a2 ba 3 -"


def test_the_variables_are_those_of_the_design(tmp_path: Path, write: Write) -> None:
    write(
        "like/push.jinja",
        "{% block title %}{{ event.type }} {{ count }} {{ actors | length }} {{ items[0].x }}{% endblock %}"
        "{% block body %}{{ recipient | list | sort | join(' ') }} {{ event.actor.id }}{% endblock %}",
    )
    told = event(actor="a1", data={"x": "v"})
    content = load(tmp_path).render("push", told, Recipient(id="u1", email="u@example.com"))
    assert content == {"title": "like 1 1 v", "body": "id locale name time_zone a1"}


def test_what_is_set_around_the_blocks_is_known_in_each_of_them(tmp_path: Path, write: Write) -> None:
    write("like/_words.jinja", "{% macro hello(name) %}<b>{{ name }}</b>{% endmacro %}")
    write(
        "like/email.jinja",
        "{% from 'like/_words.jinja' import hello %}{% set who = actor | name('Someone') %}"
        "{% block subject %}{{ who }}{% endblock %}{% block body %}{{ hello('<' ~ who) }}{% endblock %}",
    )
    content = load(tmp_path).render("email", event(), Recipient(id="u1"))
    assert content == {"subject": "Someone", "body": "<b>&lt;Someone</b>", "text": "<Someone"}


@pytest.mark.parametrize(
    ("locale", "zone", "expected"),
    [
        (None, None, "€1,129.50 | March 3, 2026, 11:30\u202fPM UTC | March 3, 2026 | 1:02:03"),
        ("en-GB", "Europe/Berlin", "€1,129.50 | 4 March 2026, 00:30 CET | 4 March 2026 | 1:02:03"),
        (
            "fr",
            "America/Sao_Paulo",
            "€1,129.50 | March 3, 2026, 8:30\u202fPM UTC-03 | March 3, 2026 | 1:02:03",
        ),
        ("de-AT", "Europe/Vienna", "€\xa01.129,50 | 4. März 2026, 00:30 CET | 4. März 2026 | 1:02:03"),
    ],
)
def test_money_and_times_are_written_as_the_text_s_language_does(
    tmp_path: Path, write: Write, locale: str | None, zone: str | None, expected: str
) -> None:
    source = (
        "{% block title %}t{% endblock %}{% block body %}{{ data.m | money('EUR') }} |"
        " {{ data.t | datetime }} | {{ data.t | date }} | {{ data.s | duration }}{% endblock %}"
    )
    write("like/push.jinja", source)
    write("like/push.de.jinja", source)
    told = event(data={"m": "1129.5", "t": "2026-03-03T23:30:00Z", "s": 3723})
    content = load(tmp_path).render("push", told, Recipient(id="u1", locale=locale, time_zone=zone))
    assert content["body"] == expected


def test_prices_multiply_without_rounding_errors(tmp_path: Path, write: Write) -> None:
    body = "{{ data.a | money('USD', times=3) }} {{ data.b | money('USD', times=3) }}"
    assert mail(tmp_path, write, body, a=0.1, b="9.50")["body"] == "$0.30 $28.50"


def test_the_text_part_has_the_targets_of_links_and_nothing_hidden(tmp_path: Path, write: Write) -> None:
    body = """<div style="color:red; display: none">hidden <p>too</p></div><h1>Hi &amp; hello</h1>
      <p>One<br>two <b>three</b>,
      <a href="https://example.com/?a=1&amp;b=2">read on</a> or <a href="https://e.com">https://e.com</a></p>
      <table><tr><td>Lamp</td><td>9 €</td></tr><tr><td>Desk</td><td>90 €</td></tr></table>
      <ul><li>x</li><li>y</li></ul><span aria-hidden="true">A</span><img src="https://e.com/i" alt="Logo">"""
    assert mail(tmp_path, write, body)["text"] == (
        "Hi & hello\n\nOne\ntwo three, read on <https://example.com/?a=1&b=2> or https://e.com\n\n"
        "Lamp  9 €\nDesk  90 €\n\n- x\n- y\n\nLogo"
    )


def test_a_text_block_of_its_own_is_used(tmp_path: Path, write: Write) -> None:
    write(
        "like/email.jinja",
        "{% block subject %}s{% endblock %}{% block body %}<p>b</p>{% endblock %}"
        "{% block text %}\n a\n\n\n\n{{ data.x }}{% endblock %}",
    )
    content = load(tmp_path).render("email", event(data={"x": "<\x07b"}), Recipient(id="u1"))
    assert content["text"] == "a\n\n<b"


# Layouts and styles

LAYOUT = """<html><head><style>
.a { color: red } td > b { font-weight: 600 }
</style><style data-css-inline="ignore">@media print { .a { color: blue !important } }</style></head>
<body><p class="a" style="margin: {{ 1 }}px">{{ subject }}</p>
{% if note is defined %}<i>{{ note }}</i>{% endif %}{{ body }}</body></html>"""


def test_the_body_stands_in_its_layout_with_styles_in_the_tags(tmp_path: Path, write: Write) -> None:
    write("layouts/email.html.jinja", LAYOUT)
    body = mail(
        tmp_path,
        write,
        '{% set note = "n<" %}<table>{% for i in data.rows %}<tr>{% if i %}<td class="a" title="{{ i }}>">'
        '<b>{{ i }}</b><a href="https://e.com/{{ i }}?a=1&amp;b={{ i }}">l</a></td>'
        "{% endif %}</tr>{% endfor %}</table>",
        "<S>",
        rows=["x<", "y"],
    )["body"]
    assert '<p class="a" style="color: red; margin: 1px">&lt;S&gt;</p>' in body
    assert "<i>n&lt;</i><table>" in body
    assert (
        '<tr><td class="a" title="x&lt;>" style="color: red"><b style="font-weight: 600">x&lt;</b>'
        '<a href="https://e.com/x&lt;?a=1&amp;b=x&lt;">l</a></td></tr>'
    ) in body
    assert "@media print" in body
    assert "td > b" not in body
    assert body.count("<tr>") == 2


def test_imported_pieces_get_the_styles_too(tmp_path: Path, write: Write) -> None:
    write("layouts/email.html.jinja", LAYOUT)
    write("layouts/parts.jinja", '{% macro badge(t) %}<span class="a">{{ t }}</span>{% endmacro %}')
    body = mail(tmp_path, write, '{% from "layouts/parts.jinja" import badge %}{{ badge("<") }}')["body"]
    assert '<span class="a" style="color: red">&lt;</span>' in body


def test_lines_in_errors_are_those_of_the_file_although_css_was_inlined(tmp_path: Path, write: Write) -> None:
    write("layouts/email.html.jinja", LAYOUT)
    with pytest.raises(TemplateError) as caught:
        mail(tmp_path, write, '\n<p class="a">\n{{ data.gone }}</p>')
    assert str(caught.value) == "like/email.jinja:4: gone is missing"


def test_an_error_in_a_layout_names_the_layout(tmp_path: Path, write: Write) -> None:
    write("layouts/email.html.jinja", "<p>\n{{ nope }}{{ body }}</p>")
    with pytest.raises(TemplateError) as caught:
        mail(tmp_path, write, "x")
    assert str(caught.value) == "layouts/email.html.jinja:2: 'nope' is undefined"


def test_a_layout_without_a_place_for_the_body_is_a_problem(tmp_path: Path, write: Write) -> None:
    write("layouts/email.html.jinja", "<p></p>")
    write("like/email.jinja", "{% block subject %}s{% endblock %}{% block body %}b{% endblock %}")
    assert [str(p) for p in load(tmp_path).problems] == ["layouts/email.html.jinja: {{ body }} is missing"]


def test_inlined_css_with_an_expression_is_a_problem(tmp_path: Path, write: Write) -> None:
    write("layouts/email.html.jinja", "<style>\np { color: {{ data.c }} }</style>{{ body }}")
    write("like/email.jinja", "{% block subject %}s{% endblock %}{% block body %}<p>b</p>{% endblock %}")
    (problem,) = load(tmp_path).problems
    assert str(problem).startswith("layouts/email.html.jinja:2: CSS that is inlined can't hold expressions")


# Languages


def test_the_version_of_the_recipient_s_language_is_chosen(tmp_path: Path, write: Write) -> None:
    for name in ("push", "push.pt", "push.pt-BR", "push.zh_Hant"):
        write(f"like/{name}.jinja", PUSH.replace("{{ data.x }}", name))
    folder = load(tmp_path)
    chosen = {
        locale: push_body(folder, locale=locale)
        for locale in (None, "en", "pt", "pt-PT", "pt-BR", "pt_BR", "pt-br", "zh-Hant-TW", "zh-Hans", "de")
    }
    assert chosen == {
        None: "push",
        "en": "push",
        "pt": "push.pt",
        "pt-PT": "push.pt",
        "pt-BR": "push.pt-BR",
        "pt_BR": "push.pt-BR",
        "pt-br": "push.pt-BR",
        "zh-Hant-TW": "push.zh_Hant",
        "zh-Hans": "push",
        "de": "push",
    }


def test_a_layout_may_have_languages(tmp_path: Path, write: Write) -> None:
    write("layouts/email.html.jinja", "en {{ locale }} {{ body }}")
    write("layouts/email.de.html.jinja", "de {{ locale }} {{ body }}")
    for name in ("email", "email.de"):
        write(f"like/{name}.jinja", "{% block subject %}s{% endblock %}{% block body %}b{% endblock %}")
    folder = load(tmp_path)
    bodies = [
        folder.render("email", event(), Recipient(id="u", locale=x))["body"] for x in ("fr", "de-AT", "en-GB")
    ]
    assert bodies == ["en en b", "de de-AT b", "en en-GB b"]


# Changes while the service runs


def test_a_changed_template_is_used_without_a_restart(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", PUSH)
    folder = load(tmp_path)
    assert not folder.changed()
    write("like/push.jinja", PUSH.replace("{{ data.x }}", "new"))
    assert folder.changed()
    assert push_body(folder) == "v"
    assert folder.reload() == []
    assert push_body(folder) == "new"
    assert not folder.changed()


def test_a_template_that_breaks_keeps_its_last_good_version_and_says_so(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", PUSH)
    folder = load(tmp_path)
    write("like/push.jinja", PUSH + "\n{% if %}")
    (problem,) = folder.reload()
    assert (problem.template, problem.line) == ("like/push.jinja", 2)
    assert push_body(folder) == "v"
    assert list(folder.problems) == [problem]
    write("other/push.jinja", PUSH)
    assert [str(p) for p in folder.reload()] == [str(problem)], "it is said until it is mended"
    assert push_body(folder) == "v"
    write("like/push.jinja", PUSH.replace("{{ data.x }}", "mended"))
    assert folder.reload() == []
    assert push_body(folder) == "mended"


def test_a_shared_piece_that_breaks_keeps_all_that_use_it(tmp_path: Path, write: Write) -> None:
    write("layouts/parts.jinja", "{% macro m() %}one{% endmacro %}")
    write(
        "like/push.jinja",
        "{% from 'layouts/parts.jinja' import m %}" + PUSH.replace("{{ data.x }}", "{{ m() }}"),
    )
    folder = load(tmp_path)
    write("layouts/parts.jinja", "{% macro m() %}two")
    assert [p.template for p in folder.reload()] == ["layouts/parts.jinja"]
    assert push_body(folder) == "one"
    write("layouts/parts.jinja", "{% macro m() %}three{% endmacro %}")
    assert folder.reload() == []
    assert push_body(folder) == "three"


def test_a_new_event_type_appears_and_a_removed_one_goes(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", PUSH)
    folder = load(tmp_path)
    write("fresh/push.jinja", PUSH)
    assert folder.changed()
    folder.reload()
    assert folder.catalogue.kinds.keys() == {"fresh", "like"}
    (tmp_path / "like/push.jinja").unlink()
    (tmp_path / "like").rmdir()
    assert folder.changed()
    assert folder.reload() == []
    assert folder.catalogue.kinds.keys() == {"fresh"}
    with pytest.raises(TemplateError, match="does not exist"):
        push_body(folder)


def test_a_folder_that_vanishes_changes_nothing(tmp_path: Path, write: Write) -> None:
    write("t/like/push.jinja", PUSH)
    folder = load(tmp_path / "t")
    (tmp_path / "t").rename(tmp_path / "away")
    assert folder.changed()
    assert [p.reason for p in folder.reload()] == [f"there is no folder {tmp_path / 't'}"]
    assert push_body(folder) == "v"
    (tmp_path / "t").mkdir()
    assert len(folder.reload()) == 1
    assert push_body(folder) == "v"


def test_a_link_that_is_moved_is_a_change(tmp_path: Path, write: Write) -> None:
    write("one/like/push.jinja", PUSH.replace("{{ data.x }}", "1"))
    write("two/like/push.jinja", PUSH.replace("{{ data.x }}", "2"))
    (tmp_path / "now").symlink_to("one")
    folder = load(tmp_path / "now")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "now")
    assert folder.changed()
    folder.reload()
    assert push_body(folder) == "2"


# The folder as a setting


def test_a_folder_that_is_none_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_TEMPLATES: there is no folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is not a folder"):
        load(tmp_path / "file")
    (tmp_path / "layouts").mkdir()
    with pytest.raises(ConfigurationError, match="has no event type, such as like/email"):
        load(tmp_path)


def test_files_that_are_not_text_are_problems(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", PUSH)
    (tmp_path / "like/email.jinja").write_bytes(b"\xff\xfe")
    assert [str(p) for p in load(tmp_path).problems] == ["like/email.jinja: is not UTF-8"]


# Check

SAMPLE = '{"type": "like", "recipient": {"id": "u1"}, "data": {"x": "v"}}'


def test_a_good_folder_has_no_problems(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", PUSH)
    write("like/sample.json", SAMPLE)
    assert check(load(tmp_path)) == []


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ('{"type": "like", "recipient": "u1"}', "like/push.jinja:1: x is missing"),
        ('{"type": "other", "recipient": "u1"}', "like/sample.json: type: is other, and the folder is like"),
        ('{"type": "like"}', "like/sample.json: recipient: give either recipient or recipients"),
        (
            '{"type": "like", "recipient": {"id": "u1", "mail": "x"}}',
            "like/sample.json: recipient.mail: is not a known field",
        ),
        ("{", "like/sample.json: event: is not JSON"),
    ],
)
def test_check_renders_with_the_sample_and_names_what_is_wrong(
    tmp_path: Path, write: Write, sample: str, message: str
) -> None:
    write("like/push.jinja", PUSH)
    write("like/sample.json", sample)
    problems = [str(problem) for problem in check(load(tmp_path))]
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_check_reports_every_problem_of_every_version(tmp_path: Path, write: Write) -> None:
    write("like/push.jinja", PUSH)
    write("like/sample.json", SAMPLE)
    folder = load(tmp_path)
    write("like/push.de.jinja", PUSH.replace("data.x", "data.y"))
    write("like/email.jinja", "{% block subject %}")
    write("like/sms.jinja", "")
    write("bare/push.jinja", PUSH)
    write("odd/push.jinja", PUSH)
    write("odd/event.toml", "digest = 1")
    assert [(p.template, p.line) for p in check(folder)] == [
        ("bare/sample.json", None),
        ("like/email.jinja", 1),
        ("like/push.de.jinja", 1),
        ("like/sms.jinja", None),
        ("odd/event.toml", None),
    ]
    assert folder.catalogue.kinds.keys() == {"like"}, "a check changes nothing"
