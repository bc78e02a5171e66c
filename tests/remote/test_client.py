"""Addresses of servers that runs are sent to."""

import pytest

from stabmon.errors import ConfigError
from stabmon.remote.client import checked


@pytest.mark.parametrize("address", ["host:8420", "ftp://host", "http://", "http://host:port", "http://host?a=1"])
def test_what_is_no_address_is_named(address):
    with pytest.raises(ConfigError, match="server must be an address such as") as caught:
        checked(address)
    assert repr(address) in str(caught.value)


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(ConfigError, match="may hold a password") as caught:
        checked("https://user:secret@host")
    assert "secret" not in str(caught.value)
