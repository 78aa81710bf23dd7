"""A whole federation in one process, for one test."""

import pytest
from support.federations import make_federation
from support.reviewed import ReviewedSite, stopped_before_release


@pytest.fixture
def federation(tmp_path):
    return make_federation(tmp_path)


@pytest.fixture(scope="session")
def waiting(tmp_path_factory):
    """A site of a study whose two parts wait for a steward; nobody is one yet. To be copied, not changed."""
    asked = stopped_before_release(tmp_path_factory.mktemp("reviewed"))
    found = ReviewedSite(asked, tmp_path_factory.mktemp("waiting") / "alder")
    reply = found.ask("make")
    assert (reply.status, reply.code, reply.reference, dict(reply.arrays)) == ("pending", "", "", {})
    return found
