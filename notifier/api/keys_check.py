"""How good the keys of the HTTP API are, for `notifier doctor`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from notifier.api.access import ApiKeys, TokenKeys
from notifier.channel import Finding
from notifier.errors import ConfigurationError
from notifier.settings import Settings

_FEWEST_BITS: Final = 80
_MADE_UP: Final = re.compile(
    r"secret|passw|change.?me|example|notifier|qwert|123456|abcdef|(.)\1{5}", re.IGNORECASE
)
_NEW_KEY: Final = "openssl rand -base64 32 makes one"


def check_keys(settings: Settings) -> Sequence[Finding]:
    """Of `NOTIFIER_API_KEYS` and `NOTIFIER_TOKEN_KEYS`; no finding shows one of them."""
    return [*_api_keys(settings), *_token_keys(settings)]


def _api_keys(settings: Settings) -> Iterator[Finding]:
    name = "NOTIFIER_API_KEYS"
    if settings.api_keys is None:
        yield Finding("ok", name, "unset: the HTTP API is not in use here")
        return
    text = settings.api_keys.get_secret_value()
    try:
        ApiKeys(text)
    except ConfigurationError as wrong:
        yield Finding("error", name, wrong.reason, "The HTTP API does not start.", f"Correct it; {_NEW_KEY}.")
        return
    pairs = [word.strip().partition(":")[::2] for word in text.split(",") if word.strip()]
    weak = [f"{scope} (key {n})" for n, (scope, secret) in enumerate(pairs, 1) if _is_weak(secret)]
    if weak:
        means = "Whoever guesses it acts as a service of yours."
        yield Finding("error", name, f"easy to guess: {', '.join(weak)}", means, f"Replace it; {_NEW_KEY}.")
    scopes: dict[str, set[str]] = {}
    for scope, secret in pairs:
        scopes.setdefault(secret, set()).add(scope)
    shared = [sorted(of) for of in scopes.values() if len(of) > 1]
    if shared:
        means = "One service that leaks it opens all of these."
        found = f"one secret for {' and '.join(shared[0])}"
        yield Finding("warning", name, found, means, f"Give each scope its own; {_NEW_KEY}.")
    if not weak and not shared:
        counts = Counter(scope for scope, _ in pairs)
        yield Finding("ok", name, ", ".join(f"{scope} {count}" for scope, count in sorted(counts.items())))


def _token_keys(settings: Settings) -> Iterator[Finding]:
    name = "NOTIFIER_TOKEN_KEYS"
    if settings.token_keys is None:
        if settings.api_keys is not None:
            means = "Users can't read their inboxes through the API."
            mend = f"Set it to hs256: and the base64 of 32 bytes or more; {_NEW_KEY}."
            yield Finding("warning", name, "unset", means, mend)
        return
    text = settings.token_keys.get_secret_value()
    try:
        TokenKeys(text, settings.token_audience)
    except ConfigurationError as wrong:
        yield Finding("error", name, wrong.reason, "The HTTP API does not start.", f"Correct it; {_NEW_KEY}.")
        return
    words = [word.strip() for word in text.split(",") if word.strip()]
    weak = [n for n, word in enumerate(words, 1) if word.startswith("hs256:") and _is_weak(word[6:])]
    if weak:
        means = "Whoever guesses it reads every inbox."
        yield Finding("error", name, f"key {weak[0]} is easy to guess", means, f"Replace it; {_NEW_KEY}.")
    else:
        yield Finding("ok", name, f"{len(words)} {'key' if len(words) == 1 else 'keys'}")


def _is_weak(secret: str) -> bool:
    """Whether it looks made up, or has less than 80 bits by how often its characters come."""
    counts = Counter(secret)
    bits = -sum(count * math.log2(count / len(secret)) for count in counts.values())
    return bool(_MADE_UP.search(secret)) or bits < min(_FEWEST_BITS, 3 * len(secret))
