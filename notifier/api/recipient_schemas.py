"""What the OpenAPI document says of recipients: schemas, made of the models, and examples."""

from __future__ import annotations

from typing import Any, Final
from zoneinfo import available_timezones

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from notifier.api.paths import LINE
from notifier.event import Recipient
from notifier.recipients import Import

_REF: Final = "#/components/schemas/"

ADA: Final[dict[str, Any]] = {
    "id": "u42",
    "email": "ada@example.com",
    "name": "Ada Lovelace",
    "locale": "de",
    "time_zone": "Europe/Berlin",
    "preferences": {"social": {"email": False}},
}
ADA_WITHOUT_ID: Final = {name: value for name, value in ADA.items() if name != "id"}
LINES: Final = '{"id": "u42", "email": "ada@example.com"}\n{"id": "u43", "name": "Bob"}\n'
SUBSCRIPTION: Final[dict[str, Any]] = {
    "endpoint": "https://push.example.com/send/dGhpcyBpcyBub3QgYSBzZWNyZXQ",
    "expirationTime": None,
    "keys": {
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    },
}

_PLAIN: Final = r"[^\s\u0000-\u001f\u007f\u0085@<>()\[\],;:\\\"]"
_MAILBOX: Final = f"^{_PLAIN}{{1,64}}@{_PLAIN}+$"
_LOCALE: Final = "^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$"


class RefusedLine(BaseModel):
    """A line that was not stored, and why."""

    line: int
    field: str
    reason: str


class ImportReport(BaseModel):
    """What became of the lines: `new` of the profiles that were `stored` had not been there before. `errors`
    has the first 1,000 of those that were `refused`."""

    stored: int
    new: int
    refused: int
    errors: list[RefusedLine]

    @classmethod
    def of(cls, report: Import) -> ImportReport:
        errors = [RefusedLine(line=one.line, field=one.field, reason=one.reason) for one in report.refusals]
        return cls(stored=report.stored, new=report.new, refused=report.refused, errors=errors)


def ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF + name}


def _told(schema: Any) -> Any:
    """The same, with what the models check by functions, or in the syntax of Rust, said in JSON Schema's."""
    if isinstance(schema, list):
        return [_told(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    told = {name: _told(value) for name, value in schema.items()}
    if isinstance(pattern := told.get("pattern"), str):
        # To Rust the next line (NEL) is white space, to ECMA 262 it is not.
        told["pattern"] = LINE if "\\p{" in pattern else pattern.replace(r"[^\s", r"[^\s\u0085")
    return told


def _components() -> dict[str, Any]:
    _, document = models_json_schema([(Recipient, "validation")], ref_template=_REF + "{model}")
    schemas: dict[str, Any] = _told(document["$defs"])
    fields = schemas["Recipient"]["properties"]
    fields["email"] |= _or_null({"type": "string", "maxLength": 254, "pattern": _MAILBOX})
    fields["locale"] |= _or_null({"type": "string", "pattern": _LOCALE})
    fields["time_zone"] |= _or_null(ref("TimeZone"))
    schemas["TimeZone"] = {"type": "string", "enum": sorted(available_timezones())}
    schemas["Device"] = {"oneOf": fields["devices"]["items"]["oneOf"]}
    fields["devices"]["items"] = ref("Device")
    schemas["Preferences"] = {name: value for name, value in fields["preferences"].items() if name != "title"}
    fields["preferences"] = ref("Preferences")
    schemas["Recipient"]["example"] = ADA
    own = {name: field for name, field in fields.items() if name != "id"}
    schemas["Profile"] = _object(own, "A profile without its id, which the path names.", ADA_WITHOUT_ID)
    of_channels = {"type": "object", "additionalProperties": _or_null({"type": "boolean"})}
    schemas["PreferencesPatch"] = {**schemas["Preferences"], "additionalProperties": _or_null(of_channels)}
    changed = own | {name: _or_null(schema) for name, schema in (
        ("devices", fields["devices"]), ("preferences", ref("PreferencesPatch")),
    )}  # fmt: skip
    schemas["ProfilePatch"] = _object(changed, "Members to set; null removes one.", {"name": None})
    return schemas


def _object(properties: dict[str, Any], description: str, example: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": False,
        "example": example,
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


COMPONENTS: Final = _components()
