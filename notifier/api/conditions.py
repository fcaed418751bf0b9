"""Requests that hold for one version of a profile only (RFC 9110, section 13)."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header

from notifier.api.problems import Problem
from notifier.recipients import Profile

_TAG: Final = re.compile(r'(?:W/)?"[^"]*"')
_ANY: Final = frozenset({"*"})


@dataclass(frozen=True, slots=True)
class Conditions:
    """The tags that `If-Match` and `If-None-Match` name; None without the header."""

    match: AbstractSet[str] | None
    none_match: AbstractSet[str] | None

    def check(self, profile: Profile | None) -> None:
        """Raises Problem (412) when one does not hold."""
        tag = None if profile is None else etag(profile)
        if self.match is not None and not _names(self.match, tag):
            raise Problem(412, "If-Match does not name what is stored now")
        if self.is_known(profile):
            raise Problem(412, "If-None-Match names what is stored now")

    def is_known(self, profile: Profile | None) -> bool:
        """Whether `If-None-Match` names the profile."""
        if self.none_match is None or profile is None:
            return False
        return _names({tag.removeprefix("W/") for tag in self.none_match}, etag(profile))


def etag(profile: Profile) -> str:
    """The header ETag of a profile."""
    return f'"{profile.version}"'


def _names(tags: AbstractSet[str], tag: str | None) -> bool:
    return tag is not None and (tags == _ANY or tag in tags)


def _tags(header: str | None) -> AbstractSet[str] | None:
    if header is None:
        return None
    return _ANY if header.strip() == "*" else frozenset(_TAG.findall(header))


async def _conditions(
    if_match: Annotated[
        str | None,
        Header(max_length=1_000, description="Only if one of these ETags is stored; `*`: if anything is"),
    ] = None,
    if_none_match: Annotated[
        str | None,
        Header(max_length=1_000, description="Only if none of these ETags is stored; `*`: if nothing is"),
    ] = None,
) -> Conditions:
    return Conditions(_tags(if_match), _tags(if_none_match))


Given = Annotated[Conditions, Depends(_conditions)]
"""A route's parameter: the request's conditions."""
