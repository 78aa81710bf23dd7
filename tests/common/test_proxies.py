"""A hospital's proxy: who passes it, who never does, and what is no proxy."""

import pytest

from sfumato_common.command_line import require_address
from sfumato_common.errors import ConfigError
from sfumato_common.proxies import keep_loopback_direct, proxies_of

LOCAL = "localhost,127.0.0.1,::1"


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_is_told_in_the_names_that_both_libraries_read(name):
    found = proxies_of({name: "http://proxy.example:3128", "PATH": "/bin"})
    assert found == {
        "https_proxy": "http://proxy.example:3128",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "no_proxy": LOCAL,
        "NO_PROXY": LOCAL,
    }


def test_nothing_is_told_where_there_is_none_and_exceptions_are_kept():
    assert proxies_of({"NO_PROXY": "intern.example", "HTTPS_PROXY": ""}) == {}
    both = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "intern.example, 10.0.0.0/8,localhost"}
    assert proxies_of(both)["no_proxy"] == "intern.example,10.0.0.0/8,localhost,127.0.0.1,::1"


@pytest.mark.parametrize(
    "value", ["socks5://proxy:1080", "https://proxy:3129", "proxy:3128", "http://secret@", "http://secret:x"]
)
def test_a_proxy_that_cannot_carry_the_study_is_said_without_its_password(value):
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY must be http://HOST:PORT") as refused:
        proxies_of({"HTTPS_PROXY": value})
    assert value not in str(refused.value) and "secret" not in str(refused.value)


def test_this_machine_is_reached_without_a_proxy_whatever_was_said():
    environment = {"HTTPS_PROXY": "http://p:1", "no_proxy": "a.example"}
    keep_loopback_direct(environment)
    assert environment["NO_PROXY"] == environment["no_proxy"] == f"a.example,{LOCAL}"


@pytest.mark.parametrize("text", ["coordinator.example:8443", "10.0.0.5:1", "[2001:db8::5]:8443", "c:65535"])
def test_addresses(text):
    require_address(text)


@pytest.mark.parametrize(
    "text",
    ["", "coordinator.example", "coordinator.example:", ":8443", "c:0", "c:65536", "c:https", "2001:db8::5:8443",
     "https://c:8443", "me@c:8443", "c d:8443", "[::1:8443"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        require_address(text)
