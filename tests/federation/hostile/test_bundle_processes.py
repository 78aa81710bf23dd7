"""Code in the bundle against real processes: a coordinator with Flower's own SuperLink, SuperNodes, TLS. Linux only."""

import io
import json
import sys
import zipfile
from pathlib import Path

import pytest
from support.enrolment import enrol_site, keep_grant
from support.processes import wait_for
from support.superlinks import hostile_bundle, start_stock_superlink

from sfumato_client.egress.supernode import SuperNodeSettings, start_supernode, start_worker
from sfumato_client.flower.node import _why
from sfumato_common.crypto.identity import create_identity
from sfumato_common.supervise import free_port
from sfumato_server.enrol import create_authority
from sfumato_server.rounds.superlink import Control, write_secret

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(420),
]


def shadowing_bundle(marker: Path, answer: Path) -> bytes:
    """A bundle whose server side asks the site for work, and whose client side would write `marker` in the hospital."""
    evil = f"open({str(marker)!r}, 'w').write('ran')\nfrom flwr.clientapp import ClientApp\napp = ClientApp()\n"
    attack = f"""
import json, time
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()
@app.main()
def main(grid, context):
    while not list(grid.get_node_ids()):
        time.sleep(0.3)
    node = list(grid.get_node_ids())[0]
    replies = grid.send_and_receive([Message(RecordDict(), dst_node_id=node, message_type="train", ttl=60)], timeout=60)
    said = [[m.has_error(), m.error.reason if m.has_error() else ""] for m in replies]
    open({str(answer)!r}, "w").write(json.dumps(said))
"""
    names = ("evil.py", "sfumato_client/__init__.py", "sfumato_client/app.py", "torch.py")
    content = hostile_bundle({"attack.py": attack, **dict.fromkeys(names, evil)}, "attack:app", "evil:app")
    assert "sfumato_client/app.py" in zipfile.ZipFile(io.BytesIO(content)).namelist()
    return content


def test_a_hostile_bundle_never_runs_and_an_unknown_site_is_told_so(tmp_path):
    authority, port = create_authority(tmp_path / "coordinator"), free_port()
    marker, answer = tmp_path / "marker", tmp_path / "answer.json"
    children = []

    def node(name):
        home = tmp_path / name
        identity = create_identity(home / "identity", name)
        coordinator = tmp_path / "coordinator"
        keep_grant(coordinator, identity, enrol_site(coordinator, identity))
        write_secret(home / "worker.secret")
        settings = SuperNodeSettings(
            f"127.0.0.1:{port}", authority.ca_path, identity.folder / "site.crt", identity.folder / "tls.key",
            identity.node_key_path, home / "worker.secret", home, home / "logs", free_port(),
        )  # fmt: skip
        return identity, settings

    children.append(start_stock_superlink(authority, port, tmp_path / "coordinator"))
    try:
        control = Control(f"127.0.0.1:{port}", authority.ca_pem, b"it asks for none")
        control.wait_until_up(children[0], 60)
        known, known_settings = node("alder")
        _, stranger_settings = node("mallory")
        control.register(known.node_public, "alder")
        children += [start_supernode(known_settings), start_worker(known_settings)]
        stranger = start_supernode(stranger_settings)
        children.append(stranger)
        control.start_run(shadowing_bundle(marker, answer))
        log = tmp_path / "coordinator" / "logs" / "superlink.log"
        assert wait_for(answer.exists, 90), log.read_text()[-3000:]
        assert stranger.wait(30) not in (None, 0)
        control.close()
    finally:
        for child in reversed(children):
            child.stop()
    assert json.loads(answer.read_text()) == [[True, "bundle-refused"]]
    assert not marker.exists()
    assert not list((tmp_path / "alder").rglob("*.py")), "nothing of the bundle may be unpacked"
    # the coordinator got a code; why stands in the site's own log
    assert "carries files beyond its description" in known_settings.worker_log.read_text()
    assert "does not know this site's key" in _why(stranger_settings.node_log.read_text())
