"""A command that runs within a test leaves the environment as it was: a long TMPDIR ended every Chromium after it."""

import os

import pytest


@pytest.mark.parametrize("turn", [1, 2])
def test_what_one_test_sets_the_next_does_not_see(turn: int) -> None:
    assert "SFUMATO_SET_BY_A_TEST" not in os.environ and os.environ.get("TMPDIR") != "/set/by/a/test"
    os.environ["SFUMATO_SET_BY_A_TEST"] = str(turn)
    os.environ["TMPDIR"] = "/set/by/a/test"
