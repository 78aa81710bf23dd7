"""For all tests: the CA's passphrase comes from the environment, and costs nothing to stretch."""

import pytest

from sfumato_server.enrol import authority


@pytest.fixture(autouse=True, scope="session")
def _passphrase():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(authority.PASSPHRASE_VARIABLE, "correct horse battery staple")
        patch.setattr(authority, "SCRYPT_COST", 2)
        yield
