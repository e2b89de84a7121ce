"""Which addresses a webhook may go to."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ...validate import wrong_type
from .url import ascii_name

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


# ipaddress.is_global would not do: it changes between patch releases of Python, and allows NAT64, 6to4 and multicast.
DENIED = _networks(
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)  # fmt: skip
GLOBAL_UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")

PRIVATE = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7",
)  # fmt: skip
"""What `allow_private=True` allows."""

METADATA = _networks(
    "169.254.0.0/16",  # AWS, Azure, Google Cloud, DigitalOcean, Oracle, ECS
    "fe80::/10",
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::/32",  # AWS
    "fd20:ce::254/128",  # Google Cloud
    "fd00:c1::a9fe:a9fe/128",  # Oracle
    "fd00:100::100:200/128",  # Alibaba
    "fd00:42::42/128",  # Scaleway
    "fd00:a9fe:a9fe::1/128",  # Akamai (Linode)
)
"""Where clouds hand out credentials: no setting allows them."""


def in_figures(host: str) -> Address | None:
    """Return the address that `host` is, also if it is written in an old form such as 0x7f.1; None for a name."""
    with contextlib.suppress(ValueError):
        return ip_address(host)
    with contextlib.suppress(OSError):
        return IPv4Address(socket.inet_aton(host))
    return None


def _unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address maps or stands for by NAT64; any other address as it is."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        # This is how an IPv6-only host reaches the IPv4 internet.
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_metadata(address: Address) -> bool:
    """Return True if a cloud keeps credentials at this address, which is not public, or at an IPv4 address in it."""
    address = _unmapped(address)
    forms = [address]
    if isinstance(address, IPv6Address):
        packed = address.packed
        # ::a.b.c.d, SIIT, ISATAP and NAT64 keep it in the last four bytes; Teredo too, inverted; 6to4 after the first
        # two bytes; NAT64 with a prefix of 48 bits around one unused byte.
        embedded = (packed[12:], bytes(~byte & 0xFF for byte in packed[12:]), packed[2:6], packed[6:8] + packed[9:11])
        forms += map(IPv4Address, embedded)
    return any(form in network for form in forms for network in METADATA)


def is_public(address: Address) -> bool:
    """Return True for an address of the public internet."""
    address = _unmapped(address)
    if isinstance(address, IPv6Address) and (address.scope_id is not None or address not in GLOBAL_UNICAST):
        return False
    return not any(address in network for network in (*DENIED, *METADATA))


def entries(allow: str | Iterable[str], what: str) -> tuple[str, ...]:
    """Return the hosts and networks that the setting or argument `what` lists; TypeError if it holds anything else."""
    if not isinstance(allow, Iterable):
        raise wrong_type(what, allow, 'hosts and networks, such as ["hooks.local", "10.1.0.0/16"]; [] for none')
    listed = (allow,) if isinstance(allow, str) else tuple(allow)
    for entry in listed:
        if not isinstance(entry, str):
            raise TypeError(f"{what} holds hosts and networks as str, not {type(entry).__name__}.")
    return listed


def _network(entry: str, what: str) -> Network | None:
    """Return the network, or the one address, that `entry` is; None for a name, ValueError for a part of a network."""
    text = entry.strip("[]")
    try:
        whole = ip_network(text, strict=False)
    except ValueError:
        return None
    with contextlib.suppress(ValueError):
        return ip_network(text)
    raise ValueError(f"{what}: {entry!r} is an address with the size of a network. Write '{whole}' for the network.")


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed besides public addresses: hosts by their exact name, and networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, allow: bool | str | Iterable[str], what: str) -> Policy:
        """Return the policy that the setting or argument `what` gives: hosts and networks, True for private ones."""
        if isinstance(allow, bool):
            return cls(networks=PRIVATE if allow else ())
        hosts: set[str] = set()
        networks: list[Network] = []
        for entry in entries(allow, what):
            network = _network(entry, what)
            if network is not None:
                networks.append(network)
                continue
            host = ascii_name(entry).rstrip(".")
            if not host or host.replace(".", "").isdigit():
                raise ValueError(f"{what} holds hosts ('hooks.local') and networks ('10.1.0.0/16'), not {entry!r}.")
            hosts.add(host)
        return cls(frozenset(hosts), tuple(networks))

    def refusal(self, host: str, addresses: Iterable[str]) -> str | None:
        """Return why a webhook must not go to `host`, which has these addresses; None if it may."""
        for text in addresses:
            address = ip_address(text)
            if is_public(address):
                continue
            if is_metadata(address):
                return f"{host} has the address {text}, where clouds keep credentials: no setting allows it"
            plain = _unmapped(address)
            if host.rstrip(".") not in self.hosts and not any(plain in network for network in self.networks):
                return (
                    f"{host} has the address {text}, which is not public. "
                    f"To allow it add {host!r}, or its network, to ASOK_WEBHOOK_ALLOW"
                )
        return None
