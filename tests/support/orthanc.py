"""A real PACS for tests: Orthanc on loopback, with a database of its own; and what stands between it and a site."""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sfumato_common.supervise import free_port

PLUGIN = next((p for p in (Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),) if p.exists()), None)
PROGRAM = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
USER, PASSWORD = "sfumato", "pass-word-of-the-test"
TITLE, SITE = "ORTHANC", "SFUMATO"


def require_orthanc() -> None:
    if PROGRAM is None or PLUGIN is None:
        pytest.skip("Orthanc and its DICOMweb plugin are not installed (packages orthanc, orthanc-dicomweb)")


class Orthanc:
    """One server; `start` and `kill` may follow each other on the same database."""

    def __init__(self, folder: Path, **more: Any) -> None:
        require_orthanc()
        self.folder = folder
        self.http, self.dicom, self.listener = free_port(), free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "db").mkdir(parents=True, exist_ok=True)
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "DicomAet": TITLE,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": False,
            "DicomModalities": {"site": [SITE, "127.0.0.1", self.listener]},
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **more,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def start(self) -> Orthanc:
        with (self.folder / "log").open("ab") as log:
            words = [str(PROGRAM), str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            if all(_listens(port) for port in (self.http, self.dicom)):
                return self
            time.sleep(0.05)
        raise AssertionError("Orthanc did not start")

    def kill(self) -> None:
        """kill -9 of this very process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def rest(self, path: str, data: bytes | None = None) -> Any:
        """Its own REST API, which a site never uses."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data)
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def fill(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.dcm")):
            self.rest("/instances", path.read_bytes())

    def state(self) -> Any:
        """All that a writer would change."""
        return self.rest("/statistics"), self.rest("/changes?limit=100000"), sorted(self.rest("/instances"))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Throttle:
    """A TCP proxy that lets so many bytes a second through towards the site, and after `stall_at` none any more.

    With `tls` it ends TLS before the server, as a hospital's gateway does: the HTTPS of Debian's Orthanc 1.10.1 ends
    itself (signal 11) at the first connection.
    """

    def __init__(
        self, port: int, rate: float = 1e9, stall_at: int | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.to, self.rate, self.stall_at, self.tls = port, rate, stall_at, tls
        self.passed = 0
        self._ended = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._listening.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                near, _ = self._listening.accept()
                try:
                    if self.tls is not None:
                        near = self.tls.wrap_socket(near, server_side=True)
                    far = socket.create_connection(("127.0.0.1", self.to), 5)
                except OSError:
                    near.close()
                    continue
                threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, slowed: bool) -> None:
        piece = max(1, min(65536, int(self.rate / 20))) if slowed else 65536
        try:
            while data := source.recv(piece):
                if slowed:
                    self.passed += len(data)
                    if self.stall_at is not None and self.passed > self.stall_at:
                        self._ended.wait(30)
                    time.sleep(len(data) / self.rate)
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Authority:
    """A CA of one test, and certificates for 127.0.0.1."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        folder.mkdir(parents=True, exist_ok=True)
        self._key = rsa.generate_private_key(65537, 2048)
        self._subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        built = self._builder(self._subject, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self._write(f"{name}.pem", built.sign(self._key, hashes.SHA256()))

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def issue(self, name: str) -> tuple[Path, Path]:
        """Files of a certificate and its key."""
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        built = self._builder(subject, key).add_extension(names, False).sign(self._key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / f"{name}.key").write_bytes(pem)
        return self._write(f"{name}.pem", built), self.folder / f"{name}.key"

    def _builder(self, subject: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path
