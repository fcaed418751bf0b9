"""What a broker's URL may say, and what of it nobody gets to see."""

from __future__ import annotations

import pytest

from notifier.broker.connection import connect
from notifier.broker.url import check_url, display_url
from notifier.errors import ConfigurationError


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize("char", "#/?")
def test_a_password_that_is_not_encoded_is_refused_and_not_repeated(scheme: str, char: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
        check_url(f"{scheme}://:geheim{char}word@127.0.0.1:7000/mymaster")
    assert "geheim" not in str(caught.value)
    assert "word@" not in str(caught.value)


def test_an_option_that_nobody_knows_is_named() -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_REDIS_URL: colour is not an option"):
        connect("redis://127.0.0.1:7000/0?colour=red")


def test_a_shown_url_has_no_password() -> None:
    shown = display_url("redis+sentinel://ada:geheim@a:1,b:2/mymaster?sentinel_password=geheim2")
    assert "geheim" not in shown
    assert "a:1,b:2/mymaster" in shown
