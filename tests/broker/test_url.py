"""What a broker's URL may say, and what of it nobody gets to see."""

from __future__ import annotations

import pytest

from notifier.broker.connection import connect, connect_sync
from notifier.broker.url import check_url, display_url
from notifier.errors import ConfigurationError


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize("char", "#/?[")
@pytest.mark.parametrize("beginning", ["geheim", "1234"])
def test_a_password_that_is_not_encoded_is_refused_and_not_repeated(
    scheme: str, char: str, beginning: str
) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
        check_url(f"{scheme}://ada:{beginning}{char}word@127.0.0.1:7000/mymaster")
    assert beginning not in str(caught.value)
    assert "word@" not in str(caught.value)


def test_an_option_that_nobody_knows_is_named() -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_REDIS_URL: colour is not an option"):
        connect("redis://127.0.0.1:7000/0?colour=red")


@pytest.mark.parametrize("host", ["redis://a:1/{}", "redis+sentinel://a:1/mymaster/{}"])
def test_a_database_is_a_number(host: str) -> None:
    with pytest.raises(ConfigurationError, match="shop is not the number of a database"):
        check_url(host.format("shop"))


@pytest.mark.parametrize("url", ["rediss://a:1", "rediss+cluster://a:1", "rediss+sentinel://a:1/mymaster"])
@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("colour=red", "colour is not an option"),
        ("socket_timeout=soon", "socket_timeout"),
        ("decode_responses=true", "decode_responses is not an option"),
        ("protocol=9", "protocol is not an option"),
        ("ssl_cert_reqs=maybe", "maybe"),
        ("ssl_ca_certs=/nowhere/ca.crt", "ssl_ca_certs can't be used: No such file or directory"),
        (f"ssl_ca_certs={__file__}", "ssl_ca_certs can't be used"),
        (f"ssl_certfile={__file__}&ssl_keyfile={__file__}", "ssl_certfile or ssl_keyfile can't be used"),
    ],
)
def test_an_option_that_can_not_work_is_a_wrong_setting(url: str, option: str, reason: str) -> None:
    for connecting in (connect, connect_sync):
        with pytest.raises(ConfigurationError, match=reason) as caught:
            connecting(f"{url}?{option}")
        assert caught.value.setting == "NOTIFIER_REDIS_URL"


def test_a_shown_url_has_no_password() -> None:
    shown = display_url("redis+sentinel://ada:geheim@a:1,b:2/mymaster?sentinel_password=geheim2")
    assert "geheim" not in shown
    assert "a:1,b:2/mymaster" in shown
