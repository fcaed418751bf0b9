"""The filters that templates have beyond Jinja's own; listed for authors in `notifier.rendering`.

Numbers and times are written in the variable `locale`, and times in `recipient.time_zone`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time
from babel.numbers import format_currency, format_decimal
from jinja2 import Undefined, pass_context
from jinja2.runtime import Context

_WEB_ADDRESS = re.compile(r"https?://[^\s\"<>\\^`{|}\x00-\x20\x7f]+", re.IGNORECASE)
_FORMATS = {"full", "long", "medium", "short"}


@lru_cache(maxsize=512)
def babel_locale(tag: str) -> Locale:
    """Babel's locale for a language tag; for one that it does not know, that of its language, or English."""
    for candidate in (tag, tag.partition("-")[0]):
        try:
            return Locale.parse(candidate, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    return Locale("en")


@pass_context
def money(context: Context, value: Any, currency: Any, times: Any = 1) -> str:
    """`129.5 | money("EUR")` is €129.50 or 129,50 €. `currency` is an ISO 4217 code.

    `times` multiplies without a rounding error, also when the value came as text.
    """
    if not isinstance(currency, str) or not re.fullmatch(r"[A-Z]{3}", currency):
        raise ValueError(f"money: {str(currency)[:20]!r} is not a currency code such as EUR")
    amount = _decimal("money", value) * _decimal("money", times)
    return _money(amount, currency, context["locale"])


@lru_cache(maxsize=1024)
def _money(amount: Decimal, currency: str, locale: str) -> str:
    # A total stands in a mail more than once, and formatting is slow.
    return str(format_currency(amount, currency, locale=babel_locale(locale)))


@pass_context
def number(context: Context, value: Any) -> str:
    """`12345.6 | number` is 12,345.6 or 12.345,6."""
    return str(format_decimal(_decimal("number", value), locale=_locale(context)))


@pass_context
def date_(context: Context, value: Any, style: str = "long") -> str:
    """`data.starts_at | date` is March 3, 2026 or 3. März 2026; style full, long, medium or short."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        day = date.fromisoformat(value)  # a day as such is the same in every zone
    else:
        day = _local(context, "date", value).date()
    return str(format_date(day, _style("date", style), locale=_locale(context)))


@pass_context
def datetime_(context: Context, value: Any, style: str = "long") -> str:
    """`data.starts_at | datetime` is March 3, 2026, 6:00 PM CET; `style` is that of the date."""
    local = _local(context, "datetime", value)
    locale = _locale(context)
    zone = local.tzname() or ""
    if zone[:1] in {"+", "-"}:
        zone = f"UTC{zone}"
    day = format_date(local.date(), _style("datetime", style), locale=locale)
    return f"{day}, {format_time(local.time(), 'short', locale=locale)} {zone}".rstrip()


def duration(value: Any) -> str:
    """`272 | duration` is 4:32, and 3723 is 1:02:03. The value is in seconds."""
    seconds = int(_decimal("duration", value))
    if seconds < 0:
        raise ValueError("duration: is below zero")
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def safe_url(value: Any) -> str:
    """The value when it is an http or https address; otherwise, also when it is missing, nothing."""
    if isinstance(value, str) and _WEB_ADDRESS.fullmatch(value):
        return value
    return ""


def name(value: Any, fallback: str) -> str:
    """`actor | name("Someone")` is the name of an actor or recipient, or else the fallback."""
    if value is None or isinstance(value, Undefined):
        return fallback
    found = value.get("name") if isinstance(value, Mapping) else None
    return (found.strip() if isinstance(found, str) else "") or fallback


FILTERS: Final[dict[str, Callable[..., str]]] = {
    "money": money,
    "number": number,
    "date": date_,
    "datetime": datetime_,
    "duration": duration,
    "safe_url": safe_url,
    "name": name,
}


def _locale(context: Context) -> Locale:
    return babel_locale(context["locale"])


def _decimal(what: str, value: Any) -> Decimal:
    text = str(value)  # of a missing name: raises, and says which
    try:
        result = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{what}: {text[:40]!r} is not a number") from None
    if isinstance(value, bool) or not result.is_finite() or abs(result.adjusted()) > 30:
        raise ValueError(f"{what}: {text[:40]!r} is not a number")
    return result


def _local(context: Context, what: str, value: Any) -> datetime:
    zone = _zone(context["recipient"]["time_zone"])
    if not isinstance(value, datetime):
        text = str(value)
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{what}: {text[:40]!r} is not an ISO 8601 time") from None
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    try:
        local: datetime = value.astimezone(zone)
    except OverflowError:
        raise ValueError(f"{what}: {value} is out of range") from None
    return local


@lru_cache(maxsize=512)
def _zone(key: str | None) -> tzinfo:
    return ZoneInfo(key) if key else UTC


def _style(what: str, style: str) -> Any:
    if style not in _FORMATS:
        raise ValueError(f"{what}: the style is full, long, medium or short")
    return style
