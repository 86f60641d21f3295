"""Which addresses can be asked by HTTP."""

from __future__ import annotations

import pytest

from aligner_proxy.web_address import is_web_address


@pytest.mark.parametrize("address", ["http://a", "https://a:8443/x?y", "http://[::1]:80", "HTTP://a", "http://u:p@a"])
def test_an_address_with_a_host_is_one(address: str) -> None:
    assert is_web_address(address)


@pytest.mark.parametrize(
    "address", ["", "a", "a:80", "ftp://a", "http://", "http://:80", "http://a:0", "http://a:99999"]
)
def test_other_texts_are_none(address: str) -> None:
    assert not is_web_address(address)


def test_a_host_that_cannot_be_read_is_none() -> None:
    assert not is_web_address("http://[::1")
