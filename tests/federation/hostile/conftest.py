"""A hospital at four moments of an honest study: made once, copied for every attack."""

import shutil

import pytest
from support.hospital import Hospital, environment, make_hospital, study

from sfumato_client.site.home import SiteHome


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    # an unknown plan is refused at the default interval, before the policy is read; here nobody waits
    monkeypatch.setattr("sfumato_client.site.handler.DEFAULT_ANSWER_INTERVAL_S", 0.0)


@pytest.fixture(scope="session")
def moments(tmp_path_factory):
    original = make_hospital(tmp_path_factory.mktemp("hospital") / "alder")
    return original, study(original)


def _copy(moments, moment, tmp_path, monkeypatch):
    original, folders = moments
    root = tmp_path / moment
    shutil.copytree(folders[moment], root)
    return environment(monkeypatch, Hospital(SiteHome(root), original.plan, [], original.asked))


@pytest.fixture
def fresh(moments, tmp_path, monkeypatch):
    """Nothing was asked yet; `asked` holds what an honest coordinator will ask."""
    return _copy(moments, "fresh", tmp_path, monkeypatch)


@pytest.fixture
def midway(moments, tmp_path, monkeypatch):
    """The spectral stage and the GAN's first round are answered."""
    return _copy(moments, "midway", tmp_path, monkeypatch)


@pytest.fixture
def trained(moments, tmp_path, monkeypatch):
    """Every stage is answered, nothing is released."""
    return _copy(moments, "trained", tmp_path, monkeypatch)


@pytest.fixture
def finished(moments, tmp_path, monkeypatch):
    """Released, and the utility figure answered."""
    return _copy(moments, "finished", tmp_path, monkeypatch)
