"""What `notifier demo` and `notifier dev` have in common: where the channels send to, and which templates."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import notifier
from notifier.dead_letters import ALERT_TYPE
from notifier.local.mailbox import MailboxServer

ADMIN: Final = "ops@example.com"
"""Whom alerts are sent to where the settings name nobody."""


def channel_environ(mailbox: MailboxServer, vapid_private_key: str) -> dict[str, str]:
    """The channels' own settings, so that everything they send stays on this machine."""
    return {
        "NOTIFIER_SMTP_URL": f"{mailbox.url}?starttls=never",
        "NOTIFIER_MAIL_FROM": "Notifier <notifier@example.com>",
        "NOTIFIER_VAPID_PRIVATE_KEY": vapid_private_key,
        "NOTIFIER_VAPID_SUBJECT": f"mailto:{ADMIN}",
        "NOTIFIER_WEB_PUSH_ALLOW_HTTP": "true",
    }


def shipped_templates() -> Path:
    """The templates that stand beside the package, in a checkout and in the image; else `templates` here."""
    beside = Path(notifier.__file__).parent.parent / "templates"
    # Ours have it; a folder of that name in site-packages is somebody else's.
    return beside if (beside / ALERT_TYPE).is_dir() else Path("templates")
