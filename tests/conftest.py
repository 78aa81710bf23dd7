"""For all tests: the CA's passphrase comes from the environment and costs nothing to stretch.

What commands keep of computed costs is this run's own.

No test changes the environment of the next one.
"""

import os
import tempfile
from collections.abc import Iterator

import pytest

from sfumato_server.enrol import authority


@pytest.fixture(autouse=True, scope="session")
def _passphrase(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(authority.PASSPHRASE_VARIABLE, "correct horse battery staple")
        patch.setattr(authority, "SCRYPT_COST", 2)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Commands set variables for the processes they start (TMPDIR, logs): within a test, also for all that follow."""
    before, folder = dict(os.environ), tempfile.tempdir
    yield
    tempfile.tempdir = folder
    # pytest's own word for the running test comes and goes between
    now = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    for name in now.keys() - before.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name != "PYTEST_CURRENT_TEST"})
