"""`make demo REVIEW=1`, real processes: the study waits for a person's click on the page whose address is printed."""

import re
import subprocess

import pytest
from support import browser
from support.processes import ENVIRONMENT, PROGRAMS, SMALL_PLAN, SMALL_POLICY, demo_command, wait_for, write_configs

from sfumato_client.site.desk import queue
from sfumato_client.site.home import SiteHome
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.publish import verify_dataset
from sfumato_server.status.overview import overview

pytestmark = pytest.mark.slow
GROUPS = {"method": "k-same", "images": 4, "k": 3, "encoder_steps": 2, "refinement_steps": 1}


def decide(address, told, folder):
    """What a person does."""
    with browser.chromium(folder) as page:
        page.open(address, 1280, 800, dark=False)
        page.click(".queue a")
        page.click("input[value=approve]")
        page.type("input[name=reason]", "nobody is seen")
        page.type("input[name=passphrase]", told)
        page.click("button")
        page.wait_for_text("approved by steward")


@pytest.mark.timeout(1500)
@pytest.mark.skipif(not browser.is_there(), reason="chromium and chromedriver are not installed")
def test_the_demo_waits_for_a_persons_click(tmp_path):
    plan = {**SMALL_PLAN, "release": [*SMALL_PLAN["release"], GROUPS]}
    gate = {**SMALL_POLICY["release"]["gate"], "identity_share_limit": 1.0, "attacks": []}
    rules = {"allowed_methods": ["dp-sampling", "k-same"], "smallest_group": 2, "gate": gate}
    policy = {**SMALL_POLICY, "release": {**SMALL_POLICY["release"], **rules}}
    configs, out, log = write_configs(tmp_path / "configs", plan, policy), tmp_path / "out", tmp_path / "log"
    with log.open("wb") as stream:
        demo = subprocess.Popen(
            [*demo_command(out, configs), "--review"], env=ENVIRONMENT, stdout=stream, stderr=stream
        )
    try:
        told = re.compile(r"(http://\S+)\nand decide as 'steward', passphrase (\w+)")
        assert wait_for(lambda: told.search(log.read_text()) or demo.poll() is not None, 500), log.read_text()
        address, passphrase = told.search(log.read_text()).groups()
        home = SiteHome(out / "work" / "sites" / "alder")
        states = lambda: {entry.part: entry.state for entry in queue(home.root)}  # noqa: E731
        assert wait_for(lambda: states().get("declared") == "waits" or demo.poll() is not None, 400), log.read_text()
        coordinator = CoordinatorHome(out / "work" / "coordinator")
        seen = lambda: overview(coordinator.root, coordinator.plan())["releases"]["alder"]  # noqa: E731
        assert wait_for(lambda: seen() == {"formal": "admitted", "declared": "with its stewards"}, 60), seen()
        assert demo.poll() is None
        (tmp_path / "profile").mkdir()
        decide(address, passphrase, tmp_path / "profile")
        assert demo.wait(400) == 0, log.read_text()
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(30)
    assert verify_dataset(out / "published", None)
    assert overview(coordinator.root, coordinator.plan())["releases"]["alder"]["declared"] == "admitted"
    shown = subprocess.run(
        [PROGRAMS / "sfumato-site", "queue", "--home", home.root],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert "declared: approved by steward" in shown and "approve: nobody is seen" in shown
