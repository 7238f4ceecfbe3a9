"""Addresses: the public internet, and nothing that only looks like it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tinyworkflow_core.addresses import EVERYWHERE, addresses_of, allowed_networks, is_public
from tinyworkflow_core.errors import ApplicationError, ConfigurationError


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "169.254.169.254",  # metadata of most clouds
        "100.100.100.200",  # of Alibaba
        "192.0.0.192",  # of Oracle
        "168.63.129.16",  # Azure
        "fd00:ec2::254",  # AWS over IPv6
        "100.64.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo, to 127.0.0.1
    ],
)
def test_what_is_private_local_or_reserved_is_not_public_in_any_spelling(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_what_is_on_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "::1", "0"])
async def test_a_host_that_leads_here_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises((ApplicationError, ConnectionError)) as refused:
        await addresses_of(host, 80)
    assert any(words in str(refused.value) for words in ("not on the public internet", "cannot be resolved"))
    assert "127.0.0.1" not in str(refused.value)  # what a name stands for inside is nobody's business


async def test_allowed_networks_let_in_what_is_in_them_and_nothing_else() -> None:
    allowed = allowed_networks({"TINYWORKFLOW_ALLOW_PRIVATE_ADDRESSES": "127.0.0.0/31, ::1"})
    assert await addresses_of("127.0.0.1", 80, allowed=allowed) == ["127.0.0.1"]
    with pytest.raises(ApplicationError, match="TINYWORKFLOW_ALLOW_PRIVATE_ADDRESSES"):
        await addresses_of("127.0.0.2", 80, allowed=allowed)


def test_the_environment_says_everything_nothing_or_networks() -> None:
    def said(text: str) -> list[str]:
        return [str(one) for one in allowed_networks({"TINYWORKFLOW_ALLOW_PRIVATE_ADDRESSES": text})]

    assert allowed_networks({}) == []
    assert said(" ") == said("false") == said("0") == []
    assert said("True") == said("1") == [str(one) for one in EVERYWHERE]
    assert said("10.1.0.0/16,192.168.0.7") == ["10.1.0.0/16", "192.168.0.7/32"]
    for wrong in ("all", "10.1.0.1/16", "10.0.0.0/8,"):
        with pytest.raises(ConfigurationError, match="TINYWORKFLOW_ALLOW_PRIVATE_ADDRESSES"):
            said(wrong)
