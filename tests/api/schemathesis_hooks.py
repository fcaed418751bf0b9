"""Loaded by schemathesis, in its own environment: see test_schemathesis.py."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime
from typing import Any

import schemathesis
from schemathesis.engine import observations

_KEY = "idempotency-key"
_VALID = '"[ !#-~]{1,255}"|[!#-~]{1,255}'


# It looks for its own address in every text of an answer, and 4.32 ends with an internal error at one that
# looks like a URL and can't be read, such as http://[ in a profile that it has put there itself.
_path_of = observations._same_origin_path  # noqa: SLF001 - there is no setting for it


def _path_if_readable(value: str, origin: tuple[str, str]) -> str | None:
    try:
        found: str | None = _path_of(value, origin)
    except ValueError:
        return None
    return found


observations._same_origin_path = _path_if_readable  # noqa: SLF001


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:  # noqa: ARG001
    """A key of its own for each request: with an earlier one and another body, 422 is right."""
    for name, value in list((case.headers or {}).items()):
        if name.lower() == _KEY and re.fullmatch(_VALID, str(value)):
            case.headers[name] = str(value).strip('" ')[:200].replace(" ", "-") + str(uuid.uuid4())
    for event in case.body if isinstance(case.body, list) else [case.body]:
        for deliver, expires in (("deliver_at", "expires_at"), ("deliverat", "expiresat")):
            if isinstance(event, dict) and _is_time(event.get(deliver)) and _is_time(event.get(expires)):
                del event[deliver]  # a schema can't say which of them has to be the later one


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


@schemathesis.serializer("application/x-ndjson", "application/jsonl")
def lines(context: Any, value: Any) -> bytes:  # noqa: ARG001
    """The lines of an import, which are one text."""
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()
