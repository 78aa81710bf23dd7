"""A real Orthanc by DIMSE: C-FIND, C-GET, C-MOVE, TLS, and a listener that takes from its peers alone."""

import errno
import json
import os
import socket
import ssl
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from pydicom import dcmread
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from pynetdicom import AE
from support.orthanc import SITE, TITLE, USER, Authority, Orthanc, Throttle
from support.pacs import FILMS, PATIENTS, films, home, objects, orthanc, parts, say
from support.processes import wait_for

from sfumato_client.pacs.fetching import open_archive
from sfumato_client.pacs.incoming import Incoming
from sfumato_client.pacs.listener import keep_free, listening
from sfumato_client.pacs.query import Query
from sfumato_client.pacs.quiet import quiet
from sfumato_client.pacs.receiving import Receiver
from sfumato_client.pacs.settings import Dimse, load_pacs
from sfumato_client.pacs.spool import spooled
from sfumato_common.strict import parse
from sfumato_common.supervise import free_port

__all__ = ["films", "home", "orthanc", "say"]  # fixtures


@pytest.fixture
def described(tmp_path):
    def write(port, **more):
        path = tmp_path / "pacs.yaml"
        said = {"kind": "dimse", "host": "127.0.0.1", "port": port, "ae_title": SITE, "called": TITLE, "tries": 2}
        path.write_text(yaml.safe_dump({**said, **more}))
        return path

    return write


def fetched(say, pacs, home):
    code, line, said = say("sfumato-site", "pacs", "fetch", pacs, "--home", home, "--json")
    assert (code, line) == (0, "")
    return json.loads(said)


def test_the_worklist_is_the_one_of_dicomweb(say, orthanc, described):
    code, _, said = say("sfumato-site", "pacs", "list", described(orthanc.dicom), "--json", "--description", "chest pa")
    found = json.loads(said)
    assert (code, len(found["studies"]), found["patients"]) == (0, FILMS, PATIENTS)
    assert all(study["accession"] and study["objects"] == 1 for study in found["studies"])
    dates = sorted(study["date"] for study in found["studies"])
    words = ("sfumato-site", "pacs", "list", described(orthanc.dicom), "--json", "--modality", "DX", "--to", dates[3])
    assert [study["date"] for study in json.loads(say(*words)[2])["studies"]] == [d for d in dates if d <= dates[3]]


@pytest.mark.slow
def test_no_answer_is_lost_among_many_queries(orthanc, described):
    """pynetdicom lost one of 700 to a thread of its own; `await_reactor` waits for that one."""
    archive = open_archive(load_pacs(described(orthanc.dicom)))
    with quiet():
        studies = list(archive.studies(Query()))
        for _ in range(200):
            assert [len(archive.objects(study.study, ())) for study in studies] == [1] * FILMS
        archive.close()


@pytest.mark.parametrize("how", ["get", "move"])
def test_images_come_once_and_nothing_is_written(say, orthanc, described, films, home, how):
    before = orthanc.state()
    listener = {"ae_title": SITE, "port": orthanc.listener, "peers": {TITLE: ["127.0.0.1"]}, "keep_free_mib": 0}
    pacs = described(orthanc.dicom, retrieve=how, listener=listener)
    assert fetched(say, pacs, home)["kept"] == FILMS
    images = home / "incoming" / "images"
    assert objects(images) == objects(films)
    pixels = {str(film.SOPInstanceUID): film.PixelData for film in map(dcmread, films.glob("*.dcm"))}
    assert all(dcmread(path).PixelData == pixels[str(dcmread(path).SOPInstanceUID)] for path in images.rglob("*.dcm"))
    assert fetched(say, pacs, home)["there"] == FILMS
    assert orthanc.state() == before
    assert not parts(home)


def test_a_pacs_that_dies_in_mid_transfer_costs_what_is_missing_alone(say, films, described, home, tmp_path):
    server = Orthanc(tmp_path / "orthanc").start()
    proxy = Throttle(server.dicom, rate=150_000)
    images = home / "incoming" / "images"
    try:
        server.fill(films)
        killer = threading.Thread(target=lambda: (wait_for(lambda: len(objects(images)) >= 3, 30), server.kill()))
        killer.start()
        code, line, _ = say("sfumato-site", "pacs", "fetch", described(proxy.port, idle_s=3.0), "--home", home)
        killer.join(40)
        assert (code, "Traceback" in line, len(line) > 20) == (12, False, True), line
        came = objects(images)
        assert 3 <= len(came) < FILMS
        assert not parts(home)
        server.start()
        done = fetched(say, described(server.dicom), home)
        assert (done["kept"], done["there"]) == (FILMS - len(came), len(came))
    finally:
        proxy.close()
        server.kill()


@pytest.mark.parametrize("how", ["get", "move", "dicomweb"])
def test_an_object_that_is_too_large_is_named_and_the_others_of_its_series_come(
    say, described, films, home, tmp_path, how
):
    server = Orthanc(tmp_path / "orthanc").start()
    try:
        film = dcmread(next(films.glob("*.dcm")))
        for number in range(3):
            film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"2.25.{100 + number}"
            film.Rows = film.Columns = side = 1024 if number == 1 else 64
            film.PixelData = bytes(2 * side * side)
            film.save_as(tmp_path / f"{number}.dcm")
        server.fill(tmp_path)
        listens = {"ae_title": SITE, "port": server.listener, "peers": {TITLE: ["127.0.0.1"]}, "keep_free_mib": 0}
        more = {"largest_mib": 1, "idle_s": 2.0}
        if how == "dicomweb":
            web = {"kind": "dicomweb", "url": server.url, "user": USER, "password_env": "PACS_PASSWORD", **more}
            pacs = tmp_path / "web.yaml"
            pacs.write_text(yaml.safe_dump(web))
        else:
            pacs = described(server.dicom, retrieve=how, listener=listens, **more)
        code, line, _ = say("sfumato-site", "pacs", "fetch", pacs, "--home", home)
    finally:
        server.kill()
    assert (code, "1 x what came is larger than 'largest_mib' allows" in line) == (12, True), line
    assert objects(home / "incoming" / "images") == {"2.25.100", "2.25.102"}
    assert not parts(home)


def test_wrong_titles_and_ports_get_one_sentence(say, orthanc, described):
    def fails(code, words, port=None, **more):
        found, line, _ = say("sfumato-site", "pacs", "list", described(port or orthanc.dicom, **more))
        assert (found, words in line) == (code, True), line

    fails(2, "check 'called'", called="NOBODY")
    fails(12, "enter this site's 'ae_title'", ae_title="STRANGER")
    fails(12, "nothing listens", free_port())
    fails(12, "did not answer as a DICOM service", orthanc.http, connect_s=1.0)
    fails(2, "unencrypted", host="pacs.example")
    fails(2, "no address is known", host="pacs.invalid", clear_text=True)
    fails(2, "needs a 'listener'", retrieve="move")
    fails(2, "1 to 16", called="A\\B")
    fails(2, "IP address", listener={"ae_title": SITE, "port": 1, "peers": {TITLE: ["pacs.example"]}})


def test_a_move_to_an_unknown_destination_and_a_silent_pacs_end(say, orthanc, described, home):
    listener = {"ae_title": "ELSEWHERE", "port": free_port(), "peers": {TITLE: ["127.0.0.1"]}, "keep_free_mib": 0}
    pacs = described(orthanc.dicom, retrieve="move", listener=listener, idle_s=1.0, tries=1)
    code, line, _ = say("sfumato-site", "pacs", "fetch", pacs, "--home", home)
    assert (code in (2, 12), "Traceback" in line, bool(line)) == (True, False, True)
    silent = Throttle(orthanc.dicom, stall_at=3000)
    begun = time.monotonic()
    code, line, _ = say("sfumato-site", "pacs", "fetch", described(silent.port, idle_s=1.0, tries=1), "--home", home)
    silent.close()
    assert (code, "in time" in line or "silent" in line) == (12, True), line
    assert time.monotonic() - begun < 30
    assert not objects(home / "incoming")


def test_dimse_over_tls_asks_both_sides_for_certificates(say, films, described, home, tmp_path):
    ours, others = Authority(tmp_path / "ca", "ours"), Authority(tmp_path / "ca", "others")
    (certificate, key), (own, own_key) = ours.issue("pacs"), ours.issue("site")
    server = Orthanc(
        tmp_path / "orthanc",
        DicomTlsEnabled=True,
        DicomTlsCertificate=str(certificate),
        DicomTlsPrivateKey=str(key),
        DicomTlsTrustedCertificates=str(ours.certificate),
    ).start()
    try:
        server.fill(films)
        tls = {"ca": str(ours.certificate), "certificate": str(own), "key": str(own_key)}
        assert fetched(say, described(server.dicom, tls=tls), home)["kept"] == FILMS
        for wrong, words in (
            ({**tls, "ca": str(others.certificate)}, "not to be trusted"),
            ({**tls, "name": "another.example"}, "not to be trusted"),
            ({"ca": str(ours.certificate)}, "certificate"),
        ):
            code, line, _ = say("sfumato-site", "pacs", "list", described(server.dicom, tls=wrong, connect_s=2.0))
            assert (code, words in line) == (2, True), line
        code, line, _ = say("sfumato-site", "pacs", "list", described(server.dicom, connect_s=2.0))
        assert (code, "check 'port' and 'tls'" in line) == (12, True), line
    finally:
        server.kill()


@contextmanager
def listener(tmp_path, largest=None, **more):
    """A listener of this process; yields its receiver, its folder and how to send to it."""
    port = free_port()
    said = {"ae_title": SITE, "port": port, "peers": {TITLE: ["127.0.0.1"]}, "keep_free_mib": 0, **more}
    pacs = {"kind": "dimse", "host": "127.0.0.1", "port": 1, "ae_title": SITE, "called": TITLE, "idle_s": 2.0}
    pacs = parse({**pacs, "connect_s": 1.0, "object_s": 5.0, "listener": said}, Dimse, "pacs.yaml")
    root = tmp_path / "incoming"
    with quiet(), Incoming.open(root, b"k" * 32, largest or pacs.largest) as incoming:
        receiver = Receiver(incoming, keep_free(pacs.listener))
        limits = (incoming.parts, incoming.largest, pacs.idle_s, pacs.object_s)
        with spooled(*limits, receiver.spent), listening(pacs.listener, receiver, pacs):
            yield receiver, root, lambda path, **how: send(port, path, **how)


def send(port, path, calling=TITLE, called=SITE, sop_class=None, tls=None):
    """The status of a C-STORE as a PACS sends one; a word where there is no association."""
    entity = AE(calling)
    entity.add_requested_context(sop_class or DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title=called, tls_args=tls)
    if not association.is_established:
        return "rejected" if association.is_rejected else "aborted"
    film = dcmread(path)
    try:
        return association.send_c_store(film).get("Status", "ended")
    finally:
        association.release()


def test_a_listener_takes_from_its_peers_what_they_may_send(tmp_path, films):
    path = next(films.glob("*.dcm"))
    with listener(tmp_path) as (receiver, root, store):
        assert store(path) == 0x0000
        assert store(path) == 0x0000, "again"
        assert store(path, calling="STRANGER") == "rejected"
        assert store(path, called="ANOTHER") == "rejected"
        assert store(path, sop_class="1.2.840.10008.5.1.4.1.1.88.11") == "aborted", "no context is accepted"
        assert dict(receiver.came) == {"kept": 1, "there": 1}
        assert len(objects(root / "images")) == 1
    assert (root / "index.csv").read_text().count("\n") == 2
    with listener(tmp_path, peers={TITLE: ["127.0.0.2"]}) as (_, _, store):
        assert store(path) in ("aborted", "rejected")
    with listener(tmp_path, peers={TITLE: ["127.0.0.2"], "OTHER": ["127.0.0.1"]}) as (_, _, store):
        assert store(path) == "rejected", "the title of one peer from the address of another"
        assert store(path, calling="OTHER") == 0x0000


def test_a_full_disk_and_an_object_that_is_too_large_are_answered(tmp_path, films, monkeypatch):
    path = next(films.glob("*.dcm"))
    with listener(tmp_path, keep_free_mib=10**9) as (receiver, root, store):
        assert store(path) == 0xA700
        assert receiver.full
        assert not objects(root)
    write, failing = os.write, []

    def full(descriptor, data):
        if ".part" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            failing.append(1)
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data)

    with listener(tmp_path) as (_, root, store):
        monkeypatch.setattr(os, "write", full)
        assert store(path) == 0xA700
        monkeypatch.undo()
        assert failing
        assert store(path) == 0x0000, "it goes on once there is room"
    with listener(tmp_path / "small", largest=5000) as (receiver, root, store):
        assert store(path) in ("ended", 0xC000), "the association is ended, or its last piece was too much"
        assert [reason for reason in receiver.came if "largest_mib" in reason]
        assert not objects(root)


def test_more_associations_than_allowed_and_peers_that_say_nothing_or_too_much(tmp_path, films):
    path = next(films.glob("*.dcm"))
    with listener(tmp_path, associations=1) as (_, _, store):
        port = store.__closure__[0].cell_contents
        entity = AE(TITLE)
        entity.add_requested_context(CTImageStorage)
        held = entity.associate("127.0.0.1", port, ae_title=SITE)
        assert held.is_established
        assert store(path) == "rejected"
        held.release()
        assert wait_for(lambda: store(path) == 0, 5)
        silent = socket.create_connection(("127.0.0.1", port), 5)
        assert wait_for(lambda: store(path) == 0, 5), "it keeps nobody else waiting"
        silent.settimeout(10)
        assert silent.recv(1) == b"", "and is closed"
        huge = socket.create_connection(("127.0.0.1", port), 5)
        huge.sendall(struct.pack(">BBL", 1, 0, 2**31))
        huge.settimeout(1.0)  # before the silence would end it
        assert huge.recv(1) == b"", "2 GiB are not waited for"
        assert wait_for(lambda: store(path) == 0, 5)


def test_a_listener_behind_tls(tmp_path, films):
    ours = Authority(tmp_path / "ca", "ours")
    certificate, key = ours.issue("site")
    tls = {"ca": str(ours.certificate), "certificate": str(certificate), "key": str(key)}
    path = next(films.glob("*.dcm"))
    with listener(tmp_path, tls=tls) as (receiver, _, store):
        assert store(path) == "aborted", "plain"
        assert not receiver.came


def test_a_sender_over_tls_shows_a_certificate_of_the_hospital(tmp_path, films):
    ours, others = Authority(tmp_path / "ca", "ours"), Authority(tmp_path / "other", "others")
    certificate, key = ours.issue("site")
    tls = {"ca": str(ours.certificate), "certificate": str(certificate), "key": str(key)}
    path = next(films.glob("*.dcm"))

    def shown(*pair):
        context = ssl.create_default_context(cafile=str(ours.certificate))
        context.check_hostname = False
        if pair:
            context.load_cert_chain(*map(str, pair))
        return context, None

    with listener(tmp_path, tls=tls) as (receiver, root, store):
        assert store(path, tls=shown(*others.issue("pacs"))) == "aborted", "another hospital's certificate"
        assert store(path, tls=shown()) == "aborted", "none"
        assert not receiver.came
        assert store(path, tls=shown(*ours.issue("pacs"))) == 0x0000
        assert dict(receiver.came) == {"kept": 1}
        assert len(objects(root / "images")) == 1


def test_accession_numbers_of_a_table_are_fetched_alone(say, orthanc, described, home, tmp_path):
    pacs = described(orthanc.dicom)
    listed = json.loads(say("sfumato-site", "pacs", "list", pacs, "--json")[2])["studies"]
    numbers = [study["accession"] for study in listed[:2]]
    table = tmp_path / "wanted.csv"
    table.write_text("Accession Number;label\n" + "".join(f"{one};x\n" for one in [*numbers, numbers[0], "NOSUCH"]))
    words = ("--home", home, "--accessions", table, "--json")
    code, _, said = say("sfumato-site", "pacs", "fetch", pacs, *words)
    done = json.loads(said)
    assert (code, done["studies"], done["kept"], done["unmet"]) == (0, 2, 2, 1)
    for bad in ("A*", "1" * 17, ""):
        table.write_text(f"accession,label\n{bad},x\n")
        code, line, _ = say("sfumato-site", "pacs", "fetch", pacs, *words)
        assert code != 0
        assert "row 1" in line
        assert not bad or bad not in line


def test_orthanc_sends_to_the_listener_of_the_command(say, orthanc, described, films, home):
    listens = {"ae_title": SITE, "port": orthanc.listener, "peers": {TITLE: ["127.0.0.1"]}, "keep_free_mib": 0}
    pacs = described(orthanc.dicom, listener=listens)
    sent = []

    def push():
        if wait_for(lambda: _open(orthanc.listener), 10):
            ids = orthanc.rest("/instances")
            sent.append(orthanc.rest("/modalities/site/store", json.dumps(ids).encode()))

    pushing = threading.Thread(target=push)
    pushing.start()
    code, _, said = say("sfumato-site", "pacs", "listen", pacs, "--home", home, "--minutes", "0.07", "--json")
    pushing.join(20)
    assert (code, json.loads(said)) == (0, {"kept": FILMS, "there": 0, "refused": {}})
    assert sent[0]["FailedInstancesCount"] == 0
    assert objects(home / "incoming" / "images") == objects(films)
    code, line, _ = say("sfumato-site", "pacs", "listen", described(orthanc.dicom), "--home", home)
    assert (code, "no 'listener'" in line) == (2, True)
    with socket.create_server(("127.0.0.1", orthanc.listener)):
        pacs = described(orthanc.dicom, listener=listens)
        code, line, _ = say("sfumato-site", "pacs", "listen", pacs, "--home", home)
    assert (code, "in use" in line) == (5, True)


def _open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
