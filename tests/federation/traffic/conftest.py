"""Three pictures, and a scanner whose canaries are their pixels, a name and a count."""

import pytest
from support.traffic.canaries import Canaries, pixel_blocks
from support.traffic.scan import Scanner
from support.traffic.toy import COUNT, SECRET

from sfumato_common.phantom import arrays


@pytest.fixture(scope="session")
def images():
    return arrays(seed=5, patients=3, size=24)[0]


@pytest.fixture(scope="session")
def scanner(images):
    canaries = Canaries()
    canaries.text("name", SECRET)
    canaries.count("patients", COUNT)
    canaries.blocks += list(pixel_blocks(images))
    return Scanner([canaries])
