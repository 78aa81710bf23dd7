"""A real Orthanc by DICOMweb: what is asked comes whole or not at all, once, and the PACS is left as it was."""

import contextlib
import csv
import http.server
import json
import os
import signal
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from pydicom import dcmread
from support.orthanc import PASSWORD, USER, Authority, Orthanc, Throttle
from support.pacs import FILMS, PATIENTS, films, home, objects, orthanc, parts, say
from support.processes import ENVIRONMENT, PROGRAMS
from support.studies import PLAN

from sfumato_common.supervise import free_port

__all__ = ["films", "home", "orthanc", "say"]  # fixtures


@pytest.fixture
def described(tmp_path):
    def write(url, **more):
        path = tmp_path / "pacs.yaml"
        said = {"kind": "dicomweb", "url": url, "user": USER, "password_env": "PACS_PASSWORD", "tries": 2, **more}
        path.write_text(yaml.safe_dump({key: value for key, value in said.items() if value is not None}))
        return path

    return write


def test_the_worklist_is_by_date_modality_and_words_of_the_description(say, orthanc, described, films):
    pacs = described(orthanc.url)

    def listed(*words):
        code, line, said = say("sfumato-site", "pacs", "list", pacs, "--json", *words)
        assert (code, line) == (0, "")
        return json.loads(said)

    everything = listed()
    assert (len(everything["studies"]), everything["patients"]) == (FILMS, PATIENTS)
    assert "alder-P0001" not in json.dumps(everything), "a patient is counted and not named"
    dates = sorted(study["date"] for study in everything["studies"])
    middle = dates[PATIENTS]
    later = listed("--from", f"{middle[:4]}-{middle[4:6]}-{middle[6:]}")["studies"]
    assert sorted(study["date"] for study in later) == [date for date in dates if date >= middle]
    assert len(listed("--to", middle)["studies"]) == sum(date <= middle for date in dates)
    assert not listed("--modality", "CT")["studies"]
    assert len(listed("--modality", "CT", "--modality", "dx")["studies"]) == FILMS
    assert len(listed("--description", "chest pa")["studies"]) == FILMS
    assert not listed("--description", "chest lateral")["studies"]
    assert say("sfumato-site", "pacs", "list", pacs, "--from", "2024-02-01", "--to", "2024-01-01")[0] == 2


def test_images_come_byte_for_byte_once_and_an_ingest_reads_them(say, orthanc, described, films, home, tmp_path):
    pacs, before = described(orthanc.url), orthanc.state()
    code, line, said = say("sfumato-site", "pacs", "fetch", pacs, "--home", home, "--json")
    assert (code, line) == (0, "")
    assert json.loads(said) == {
        "kept": FILMS,
        "left": {},
        "refused": {},
        "studies": FILMS,
        "there": 0,
        "unmet": 0,
    }
    images = home / "incoming" / "images"
    assert objects(images) == objects(films)
    pixels = {str(film.SOPInstanceUID): film.PixelData for film in map(dcmread, films.glob("*.dcm"))}
    for path in images.rglob("*.dcm"):
        assert dcmread(path).PixelData == pixels[str(dcmread(path).SOPInstanceUID)]
        assert path.stat().st_mode & 0o777 == 0o600
        assert not any(uid in str(path) for uid in pixels), "a file's name tells nothing"
    assert (home / "incoming").stat().st_mode & 0o777 == 0o700
    code, _, said = say("sfumato-site", "pacs", "fetch", pacs, "--home", home, "--json")
    assert (json.loads(said)["kept"], json.loads(said)["there"]) == (0, FILMS)
    assert orthanc.state() == before, "nothing was written to the PACS"
    _label_and_ingest(say, films, home, tmp_path)


def _label_and_ingest(say, films, home, tmp_path):
    labels = {row["file"]: row["label"] for row in csv.DictReader((films / "labels.csv").open())}
    table = tmp_path / "steward.csv"
    lines = [f"{dcmread(films / name).AccessionNumber},{label}" for name, label in labels.items()]
    table.write_text("\n".join(["AccessionNumber,Finding", *lines, "0000,normal"]) + "\n")
    code, _, said = say("sfumato-site", "pacs", "label", table, "--home", home, "--label", "Finding", "--json")
    done = json.loads(said)
    assert (code, done["by"], done["images"], done["unmet"]) == (0, "accession", FILMS, 1)
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(PLAN))
    source = home / "incoming" / "source.yaml"
    code, line, said = say("sfumato-site", "ingest", "--home", home, source, "--plan", plan)
    assert (code, line) == (0, "")
    assert f"kept {FILMS} images of {PATIENTS} patients, skipped 0" in said
    table.write_text(f"accession,label\n{lines[0].split(',')[0]},normal\n{lines[0].split(',')[0]},opacity\n")
    code, line, _ = say("sfumato-site", "pacs", "label", table, "--home", home)
    assert (code, "row 2" in line, lines[0].split(",")[0] in line) == (4, True, False)
    table.write_text("accession,label\n0001,normal\n")
    code, line, _ = say("sfumato-site", "pacs", "label", table, "--home", home)
    assert (code, "leading zeros" in line) == (4, True)


def test_classes_that_are_no_images_are_counted_and_left(say, films, described, home, tmp_path):
    server = Orthanc(tmp_path / "orthanc").start()
    try:
        film = dcmread(next(films.glob("*.dcm")))
        film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = "2.25.17"
        film.Modality = "SR"
        film.save_as(tmp_path / "report.dcm")
        server.fill(tmp_path)
        pacs = described(server.url)
        code, _, said = say("sfumato-site", "pacs", "fetch", pacs, "--home", home, "--json")
        assert (code, json.loads(said)["left"], json.loads(said)["kept"]) == (0, {"Basic Text SR Storage": 1}, 0)
        pacs = described(server.url, classes=["BasicTextSRStorage"])
        assert json.loads(say("sfumato-site", "pacs", "fetch", pacs, "--home", home, "--json")[2])["kept"] == 1
    finally:
        server.kill()


def test_a_pacs_that_dies_in_mid_transfer_costs_what_is_missing_alone(say, films, described, home, tmp_path):
    server = Orthanc(tmp_path / "orthanc").start()
    proxy = Throttle(server.http, rate=100_000)
    try:
        server.fill(films)
        images = home / "incoming" / "images"
        pacs = described(f"http://127.0.0.1:{proxy.port}/dicom-web", idle_s=2.0)
        killer = threading.Thread(target=_kill_after, args=(server.kill, images, 3))
        killer.start()
        code, line, _ = say("sfumato-site", "pacs", "fetch", pacs, "--home", home)
        killer.join(20)
        assert (code, "what was fetched stays" in line) == (12, True)
        came = objects(images)
        assert 3 <= len(came) < FILMS
        assert not parts(home), "nothing is half-kept"
        stamps = {path: path.stat().st_mtime_ns for path in images.rglob("*.dcm")}
        server.start()
        pacs, passed = described(server.url), proxy.passed
        code, _, said = say("sfumato-site", "pacs", "fetch", pacs, "--home", home, "--json")
        done = json.loads(said)
        assert (code, done["kept"], done["there"]) == (0, FILMS - len(came), len(came))
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "nothing was fetched again"
        assert passed == proxy.passed
        assert objects(images) == objects(films)
    finally:
        proxy.close()
        server.kill()


def _kill_after(kill, images, count):
    end = time.monotonic() + 30
    while time.monotonic() < end and len(list(images.rglob("*.dcm"))) < count:
        time.sleep(0.01)
    kill()


def test_a_site_that_is_killed_in_mid_transfer_goes_on_with_what_is_missing(say, orthanc, films, described, home):
    proxy = Throttle(orthanc.http, rate=100_000)
    images = home / "incoming" / "images"
    pacs = described(f"http://127.0.0.1:{proxy.port}/dicom-web")
    words = [str(PROGRAMS / "sfumato-site"), "pacs", "fetch", str(pacs), "--home", str(home)]
    with subprocess.Popen(words, env={**ENVIRONMENT, "PACS_PASSWORD": PASSWORD}, stdout=subprocess.DEVNULL) as site:
        command = _command_line(site.pid)
        _kill_after(lambda: os.kill(site.pid, signal.SIGKILL), images, 3)
        site.wait(10)
    proxy.close()
    assert PASSWORD not in command
    came = objects(images)
    assert 3 <= len(came) < FILMS
    code, _, said = say("sfumato-site", "pacs", "fetch", described(orthanc.url), "--home", home, "--json")
    assert (code, json.loads(said)["kept"], json.loads(said)["there"]) == (0, FILMS - len(came), len(came))
    assert not parts(home)
    rows = list(csv.DictReader((home / "incoming" / "index.csv").open()))
    assert {row["instance"] for row in rows} == objects(films), "also what came before the kill is in the index"


def _command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_wrong_words_in_the_description_get_one_sentence(say, orthanc, described, tmp_path, monkeypatch, capsys):
    def fails(code, words, url=None, **more):
        found, line, said = say("sfumato-site", "pacs", "list", described(url or orthanc.url, **more))
        assert (found, words in line) == (code, True), line
        assert PASSWORD not in line + said
        assert PASSWORD not in (tmp_path / "pacs.yaml").read_text()

    monkeypatch.setenv("WRONG", "wrong-pass-word")
    fails(2, "refuses user or password", password_env="WRONG")
    fails(2, "refuses user or password", user=None, password_env=None)
    fails(2, "is not set", password_env="NOT_THERE")
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o644)
    fails(2, "chmod 600", password_env=None, password_file=str(secret))
    secret.chmod(0o600)
    assert (
        say("sfumato-site", "pacs", "list", described(orthanc.url, password_env=None, password_file=str(secret)))[0]
        == 0
    )
    fails(12, "nothing listens", f"http://127.0.0.1:{free_port()}/dicom-web")
    fails(2, "check its path", orthanc.url.replace("dicom-web", "elsewhere"))
    fails(2, "speaks no TLS", orthanc.url.replace("http:", "https:"))
    fails(12, "speaks no HTTP", f"http://127.0.0.1:{orthanc.dicom}/dicom-web", connect_s=2.0, idle_s=2.0)
    fails(2, "unencrypted", "http://pacs.example/dicom-web")
    fails(2, "no user or password in the URL", f"http://a:{PASSWORD}@127.0.0.1/dicom-web".replace(PASSWORD, "x"))
    fails(2, "never write the password itself", password_env="not a name!")
    fails(2, "did you mean 'largest_mib'", largest_mb=3)
    fails(2, "names no SOP class", classes=["1.2.3"])


def test_a_slow_pacs_is_waited_for_and_a_silent_one_is_not(say, orthanc, described, home, caplog):
    slow = Throttle(orthanc.http, rate=400_000)
    pacs = described(f"http://127.0.0.1:{slow.port}/dicom-web", idle_s=1.0)
    code, _, said = say("sfumato-site", "pacs", "fetch", pacs, "--home", home, "--json")
    slow.close()
    assert (code, json.loads(said)["kept"]) == (0, FILMS)
    silent = Throttle(orthanc.http, stall_at=1000)
    begun = time.monotonic()
    code, line, _ = say(
        "sfumato-site", "pacs", "list", described(f"http://127.0.0.1:{silent.port}/dicom-web", idle_s=0.5)
    )
    silent.close()
    assert (code, "did not answer in time" in line) == (12, True)
    assert time.monotonic() - begun < 10
    assert not caplog.records, "libraries quote what they ask"


def test_tls_trusts_the_named_ca_alone_and_shows_a_certificate(say, orthanc, described, tmp_path):
    ours, others = Authority(tmp_path / "ca", "ours"), Authority(tmp_path / "ca", "others")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ours.issue("pacs"))
    context.load_verify_locations(ours.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    gateway = Throttle(orthanc.http, tls=context)
    certificate, key = ours.issue("site")
    own = {"certificate": str(certificate), "key": str(key)}

    def listed(**tls):
        return say("sfumato-site", "pacs", "list", described(f"https://127.0.0.1:{gateway.port}/dicom-web", tls=tls))

    code, _, said = listed(ca=str(ours.certificate), **own)
    assert (code, f"{FILMS} studies" in said) == (0, True)
    for tls in ({"ca": str(others.certificate), **own}, own, {"ca": str(ours.certificate)}):
        code, line, _ = listed(**tls)
        assert (code, "not to be trusted" in line) == (2, True), line
    code, line, _ = listed(ca="nowhere.pem")
    assert (code, "nowhere.pem" in line) == (2, True)
    code, line, _ = listed(ca=str(ours.certificate), certificate=str(certificate))
    assert (code, "needs its key" in line) == (2, True)
    gateway.close()


class Liar(http.server.BaseHTTPRequestHandler):
    """Answers queries like a PACS of one object, and its retrieval as `lie` does."""

    protocol_version = "HTTP/1.1"
    lie = None
    uids = ()
    film = b""

    def do_GET(self):
        with contextlib.suppress(OSError):
            self.answer()

    def answer(self):
        study, series, instance, sop_class = self.uids
        query = self.path.partition("?")[2]
        if "Accept" in self.headers and "multipart" in self.headers["Accept"]:
            type(self).lie(self)
            return
        first = "offset=0" in query
        tags = {"0020000D": study, "0020000E": series, "00080018": instance, "00080016": sop_class}
        found = [{tag: {"vr": "UI", "Value": [value]} for tag, value in tags.items()}] if first else []
        self.send("application/dicom+json", json.dumps(found).encode())

    def send(self, kind, body, length=None, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def multipart(self, body, length=None, tail=b"\r\n--b--"):
        head = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
        self.send('multipart/related; type="application/dicom"; boundary=b', head + body + tail, length)

    def log_message(self, *_):
        pass


def _another_study(self):
    self.multipart(self.other)


def _page(self):
    self.send("text/html", b"<html>please log in</html>")


def _cut_part(self):
    self.multipart(self.film[:2000], tail=b"")
    self.close_connection = True


def _cut_object(self):
    self.multipart(self.film[:-100])


def _short(self):
    self.multipart(self.film[:2000], length=10**6, tail=b"")
    self.close_connection = True


def _endless(self):
    self.send_response(200)
    self.send_header("Content-Type", "multipart/related; boundary=b")
    self.end_headers()
    self.wfile.write(b"--b\r\n\r\n")
    while True:
        self.wfile.write(bytes(65536))


def _dripping(self):
    self.send_response(200)
    self.send_header("Content-Type", "multipart/related; boundary=b")
    self.end_headers()
    self.wfile.write(b"--b\r\n\r\n")
    while True:
        self.wfile.write(b"x")
        time.sleep(0.1)


def _two(self):
    self.multipart(self.film + b"\r\n--b\r\n\r\n" + self.film)


def _nothing(self):
    self.multipart(b"no picture at all")


def _elsewhere(self):
    self.send_response(302)
    self.send_header("Location", "http://127.0.0.1:1/")
    self.send_header("Content-Length", "0")
    self.end_headers()


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        (_another_study, "of another study"),
        (_page, "web page"),
        (_cut_part, "in the midst of an object"),
        (_cut_object, "cut off"),
        (_short, "broke off"),
        (_endless, "larger than"),
        (_dripping, "in time"),
        (_two, "several objects"),
        (_nothing, "no DICOM file"),
        (_elsewhere, "another address"),
    ],
)
def test_a_server_that_lies_gets_one_sentence_and_nothing_is_kept(say, films, described, home, lie, sentence):
    first, second = (dcmread(path) for path in sorted(films.glob("*.dcm"))[:2])
    uids = (first.StudyInstanceUID, first.SeriesInstanceUID, first.SOPInstanceUID, first.SOPClassUID)
    film, other = (path.read_bytes() for path in sorted(films.glob("*.dcm"))[:2])
    told = {"lie": lie, "uids": tuple(map(str, uids)), "film": film, "other": other}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Liar,), told))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        pacs = described(f"http://127.0.0.1:{server.server_port}", largest_mib=1, object_s=1.0, idle_s=1.0)
        code, line, said = say("sfumato-site", "pacs", "fetch", pacs, "--home", home)
    finally:
        server.shutdown()
        server.server_close()
    assert (code in (2, 12), sentence in line) == (True, True), line
    assert not [value for value in (*map(str, uids), str(first.PatientID), PASSWORD) if value in line + said]
    assert not list((home / "incoming" / "images").rglob("*.dcm"))
    assert not parts(home)
    assert second.StudyInstanceUID != first.StudyInstanceUID


def test_an_honest_answer_of_the_same_server_is_kept(say, films, described, home):
    path = sorted(films.glob("*.dcm"))[0]
    film = dcmread(path)
    uids = tuple(map(str, (film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID, film.SOPClassUID)))
    told = {"lie": lambda self: self.multipart(self.film), "uids": uids, "film": path.read_bytes()}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Liar,), told))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        pacs = described(f"http://127.0.0.1:{server.server_port}", largest_mib=1)
        assert say("sfumato-site", "pacs", "fetch", pacs, "--home", home)[0] == 0
    finally:
        server.shutdown()
        server.server_close()
    (kept,) = (home / "incoming" / "images").rglob("*.dcm")
    assert kept.read_bytes() == path.read_bytes()


def test_accession_numbers_of_a_table_are_fetched_alone(say, orthanc, described, films, home, tmp_path):
    pacs, table = described(orthanc.url), tmp_path / "some.csv"
    wanted = sorted(map(dcmread, films.glob("*.dcm")), key=lambda film: film.SOPInstanceUID)[:3]
    numbers = [str(film.AccessionNumber) for film in wanted]
    # one of them twice, one in quotes, and one that no study has
    table.write_text("AccessionNumber,note\n" + "".join(f'"{one}",x\n' for one in [*numbers, numbers[0], "NOSUCH"]))
    words = ("--accessions", table, "--json")
    code, line, said = say("sfumato-site", "pacs", "list", pacs, *words)
    assert (code, line) == (0, "")
    assert sorted(study["accession"] for study in json.loads(said)["studies"]) == sorted(numbers)
    code, line, said = say("sfumato-site", "pacs", "fetch", pacs, "--home", home, *words)
    done = json.loads(said)
    assert (code, line, done["studies"], done["kept"], done["unmet"]) == (0, "", 3, 3, 1)
    assert objects(home / "incoming" / "images") == {str(film.SOPInstanceUID) for film in wanted}
    # beside another question, both have to hold
    assert not json.loads(say("sfumato-site", "pacs", "list", pacs, "--modality", "CT", *words)[2])["studies"]
    for bad in ("*", "1\\2", "", "1" * 17):
        table.write_text(f"accession,label\n{bad},x\n")
        code, line, _ = say("sfumato-site", "pacs", "fetch", pacs, "--home", home, *words)
        assert code
        assert "row 1" in line or "no rows" in line
