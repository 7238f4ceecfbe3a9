"""Addresses: which IP addresses are on the public internet, and which of them a name stands for.

For requests to places that somebody else names. Whoever connects must connect to an address from here, and not to the
name: a name server may give another address when it is asked again.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from .errors import ApplicationError, ConfigurationError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

ALLOW_VARIABLE = "TINYWORKFLOW_ALLOW_PRIVATE_ADDRESSES"

EVERYWHERE: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))

_NOT_PUBLIC = [
    ip_network("168.63.129.16/32"),  # Azure's own services, at an address that looks public
    ip_network("192.0.0.0/24"),  # Oracle's metadata, among other things
    ip_network("::/96"),  # IPv4 addresses in an old spelling
    ip_network("64:ff9b:1::/48"),  # a translator to a network of one's own
]
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether the address belongs to the public internet: not private, loopback, link-local (where clouds keep their
    metadata), shared, reserved, multicast or unspecified, and no IPv6 spelling of one that is."""
    if isinstance(address, IPv6Address):
        if (inner := _inner(address)) is not None:
            return is_public(inner)
        if address.is_site_local or address.scope_id is not None:
            return False
    if address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that calls to this one end at."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


async def addresses_of(host: str, port: int, *, allowed: Iterable[Network] = ()) -> list[str]:
    """The addresses of a host, a name or an address, in the order in which to try them.

    Raises ApplicationError (type AddressRefused) when one of them is neither public nor in one of the `allowed`
    networks, ConnectionError when the name cannot be resolved.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectionError(f"the host {host!r} cannot be resolved: {error}") from None
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    networks = list(allowed)
    for text in addresses:
        address = ip_address(text)
        if not is_public(address) and not any(address in network for network in networks):
            # Not which address it is: whoever has chosen the name may read this, and learn of a network by it.
            raise ApplicationError(
                f"the host {host!r} is not on the public internet, and {ALLOW_VARIABLE} does not let it in",
                type="AddressRefused",
            )
    return addresses


def allowed_networks(environ: Mapping[str, str] = os.environ) -> list[Network]:
    """What TINYWORKFLOW_ALLOW_PRIVATE_ADDRESSES lets in besides the public internet: everything ("true"), nothing
    ("false", or unset), or networks such as 10.1.0.0/16, separated by commas. Raises ConfigurationError for anything
    else."""
    text = environ.get(ALLOW_VARIABLE, "").strip()
    if text.lower() in ("", "0", "false", "no"):
        return []
    if text.lower() in ("1", "true", "yes"):
        return list(EVERYWHERE)
    try:
        return [ip_network(one.strip()) for one in text.split(",")]
    except ValueError as error:
        raise ConfigurationError(
            f"{ALLOW_VARIABLE}: {error}; write true, or networks such as 10.1.0.0/16 separated by commas"
        ) from None
