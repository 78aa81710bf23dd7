"""A hospital that reaches the world through its proxy alone: its node joins and answers; its own ports need none."""

import os

import pytest
from support.exchanges import site_at_work
from support.proxies import proxy_at_work

NAME = "coordinator.example"


@pytest.mark.slow
def test_a_site_joins_and_answers_through_its_proxy(tmp_path, monkeypatch):
    known: dict[str, int] = {}
    with proxy_at_work(known) as proxy:

        def behind(port):
            known[NAME] = port
            return {"HTTPS_PROXY": proxy.url}

        with site_at_work(tmp_path, host=NAME, environment=behind) as site:
            site.join()
            assert site.hello(60.0) is not None, site.said()
        assert {asked.rpartition(":")[0] for asked in proxy.asked} == {NAME}
    assert "HTTPS_PROXY" not in os.environ


@pytest.mark.slow
def test_a_coordinator_behind_a_proxy_reaches_its_own_superlink(tmp_path, monkeypatch):
    from support.superlinks import coordinator_at_work

    from sfumato_common.proxies import keep_loopback_direct

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "intern.example")
    keep_loopback_direct()
    with coordinator_at_work(tmp_path):
        pass
