"""A whole federation in one process, for one test."""

import pytest
from support.federations import make_federation


@pytest.fixture
def federation(tmp_path):
    return make_federation(tmp_path)
