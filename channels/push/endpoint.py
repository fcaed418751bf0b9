"""Which endpoints may be called: they come from browsers, and a worker stands inside a network."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import httpx

from notifier.channel import PermanentFailure

PUBLIC: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("2000::/3"))
"""Where push services can be. Of IPv6 only what is given out for the world: loopback, private, link-local
and translated addresses (NAT64: 64:ff9b::/96) all lie outside of it."""
NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(prefix)
    for prefix in (
        "0.0.0.0/8",  # this machine
        "10.0.0.0/8",
        "100.64.0.0/10",  # inside of a provider, and of many clusters
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, with the metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",  # test networks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # to many
        "240.0.0.0/4",
        "2001::/23",  # among them Teredo, which any IPv4 address can be made of
        "2001:db8::/32",
        "2002::/16",  # 6to4: a gateway makes any IPv4 address of it
        "3fff::/20",
    )
)
"""What of `PUBLIC` is not public, by the registries of RFC 6890. The NetworkPolicy of `k8s/` has the same
list, for names that resolve to such an address; a test compares them."""


def check_endpoint(endpoint: str, *, allow_http: bool) -> str:
    """The endpoint, if it may be called. Raises PermanentFailure.

    It must be https, without a user name, and its host neither this machine nor a literal address that
    is not public, in whatever notation (against server-side request forgery). A name that resolves to
    such an address is left to the network's own rules. With `allow_http`, only the form is checked.
    It is read with the parser of the client that will call it, so that both see the same host.
    """
    try:
        url = httpx.URL(endpoint)
        host, userinfo = url.raw_host.decode("ascii"), url.userinfo
    except (httpx.InvalidURL, ValueError):
        raise PermanentFailure("the endpoint is not a URL") from None
    has_port = url.port is None or 0 < url.port < 65_536
    if url.scheme not in {"https", "http"} or not host or userinfo or not has_port:
        raise PermanentFailure("the endpoint is not a URL that a push service gives out")
    if allow_http:
        return endpoint
    if url.scheme != "https":
        raise PermanentFailure("the endpoint is not https")
    if not _is_public(host.rstrip(".")):
        raise PermanentFailure("the endpoint's host is not a public one")
    return endpoint


def origin_of(endpoint: str) -> str:
    """Scheme, host and port (RFC 6454), as the audience of a VAPID token; no default port."""
    url = httpx.URL(endpoint)
    host = url.raw_host.decode("ascii")
    host = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{host}" + ("" if url.port is None else f":{url.port}")


def _is_public(host: str) -> bool:
    if "." not in host and ":" not in host and not host.isdecimal() and not host.startswith("0x"):
        return False  # localhost, and other names that only a local resolver knows
    if host.endswith((".localhost", ".local", ".internal")):
        return False
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host)
    except ValueError:
        try:
            # 127.1, 0x7f000001 and 2130706433 are addresses too, to the resolver.
            address = ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeEncodeError):
            return True
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in block for block in PUBLIC) and not any(address in block for block in NOT_PUBLIC)
