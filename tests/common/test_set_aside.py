"""Room on a disk that is set aside: taken at once, given back, told of when there is none."""

import errno
import os

import pytest

from sfumato_common.errors import NoRoomError
from sfumato_common.files import set_aside, write_atomic

SIZE = 3 * 1024**2 + 5


def blocks(monkeypatch):
    """Bytes that the open file of `set_aside` takes on the disk, seen through its descriptor."""
    seen, truncate = [], os.ftruncate

    def watch(descriptor, size):
        seen.append(os.fstat(descriptor).st_blocks * 512)
        truncate(descriptor, size)
        seen.append(os.fstat(descriptor).st_blocks * 512)

    monkeypatch.setattr(os, "ftruncate", watch)
    return seen


@pytest.mark.parametrize("unable", [None, AttributeError(), OSError(errno.EOPNOTSUPP, "no"), OSError(errno.EINVAL, "")])
def test_it_takes_blocks_and_gives_them_back(tmp_path, monkeypatch, unable):
    if unable is not None:
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(unable))
    seen = blocks(monkeypatch)
    with set_aside(tmp_path / "new", SIZE) as give_back:
        give_back()
    assert seen[0] >= SIZE
    assert seen[1] == 0
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_at_once_and_other_errors_are_what_they_are(tmp_path, monkeypatch, number):
    def full(*_):
        raise OSError(number, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoRoomError, match="make room"), set_aside(tmp_path, SIZE):
        pytest.fail("there was no room")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoRoomError):
        write_atomic(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "file" / "below", b"")
