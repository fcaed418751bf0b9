"""Stored profiles, whose device is whose, and the addresses that are no longer used.

store         Recipients: profiles are put, changed and deleted here, and nowhere else
profile       a stored profile, its version, and what changes it: a merge patch (RFC 7396), a device
devices       Devices: registering one device of somebody, and removing it
owners        who has registered a device; the newest has it
suppression   Suppressions: addresses that are passed over
importing     many profiles as JSON lines

A profile is the recipient's JSON, with only the fields that were set, under `Keys.recipient(id)`. An
address that turned out not to exist is a field of the hash `Keys.suppressed(partition)`:

    <channel>:<recipient id>/<address key>   ->   {"reason": …, "at": Unix milliseconds}

A channel's name has no colon and an address key no slash, so the field can be taken apart whatever the
id looks like. Who has registered a device is a set of ids, `Keys.device(digest)`.
"""

from notifier.recipients.devices import Devices
from notifier.recipients.importing import Import, Refusal, import_lines
from notifier.recipients.profile import MAX_PROFILE_BYTES, Profile, encode_profile, merged
from notifier.recipients.store import Change, Edit, Recipients
from notifier.recipients.suppression import (
    Suppression,
    Suppressions,
    encode_suppression,
    suppression_field,
)

__all__ = [
    "MAX_PROFILE_BYTES",
    "Change",
    "Devices",
    "Edit",
    "Import",
    "Profile",
    "Recipients",
    "Refusal",
    "Suppression",
    "Suppressions",
    "encode_profile",
    "encode_suppression",
    "import_lines",
    "merged",
    "suppression_field",
]
