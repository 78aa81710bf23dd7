"""What `coordinator run` does when its SuperLink or its rounds die: it starts both again, and not for ever."""

from types import SimpleNamespace

import pytest

from sfumato_common.errors import FederationError
from sfumato_server.coordinator import run
from sfumato_server.rounds.deadlines import GO_ON


class Runs:
    """Runs that live so many seconds each; the last one has a result."""

    def __init__(self, tmp_path, lives):
        self.home = SimpleNamespace(result_file=tmp_path / "result.json")
        self.lives, self.done, self.now = lives, 0, 0.0

    def once(self):
        self.now += self.lives[self.done]
        self.done += 1
        if self.done == len(self.lives):
            self.home.result_file.touch()

    def federate(self, monkeypatch):
        monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=lambda seconds: None))
        run._federate(self.home, self.once)


def test_it_goes_on_until_there_is_a_result(tmp_path, monkeypatch):
    runs = Runs(tmp_path, [10.0, 10.0, 10.0, 700.0, 10.0, 10.0, 10.0])
    runs.federate(monkeypatch)
    assert runs.done == 7


def test_what_dies_again_and_again_is_told_of(tmp_path, monkeypatch):
    runs = Runs(tmp_path, [10.0] * 9)
    with pytest.raises(FederationError, match="again") as told:
        runs.federate(monkeypatch)
    assert runs.done == 5 and str(told.value).endswith(GO_ON)
