"""`pacs.yaml`: where a hospital's PACS is, and how a site may speak to it; strict, and without any password."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sfumato_client.pacs.classes import image_classes, named_class
from sfumato_common.proxies import is_here
from sfumato_common.strict import Strict, load_kind

FilePath = Annotated[Path, Field(strict=False)]  # YAML has strings, not paths
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(strict=False, gt=0, le=86_400)]
_MIB = 1024**2
_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:]+(%[A-Za-z0-9]+)?")


def _title(value: str) -> str:
    if not _TITLE.fullmatch(value):
        raise ValueError("an AE title has 1 to 16 letters, digits and signs, no backslash, no blank at its ends")
    return value


Title = Annotated[str, Field(min_length=1, max_length=16)]


class Certified(Strict):
    """Files of TLS: who is trusted, and how this site shows who it is."""

    # certificates of the CA that signed the other side's; without it those that the machine trusts
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    # the name in the PACS's certificate, where it is not the host's
    name: Annotated[str, Field(min_length=1, max_length=253)] | None = None

    @model_validator(mode="after")
    def _paired(self) -> Certified:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate needs its key, and a key its certificate; give both or none")
        return self


class Listener(Strict):
    """Where a PACS may send objects to, by C-STORE: which application entities, from which addresses, and how much."""

    ae_title: Title
    port: Port
    address: str = "127.0.0.1"
    # calling AE titles, and the addresses that each may come from
    peers: Annotated[dict[Title, Annotated[list[str], Field(min_length=1)]], Field(min_length=1)]
    associations: Annotated[int, Field(ge=1, le=64)] = 4
    # room that has to stay on the disk
    keep_free_mib: Annotated[int, Field(ge=0)] = 1024
    tls: Certified | None = None

    @field_validator("ae_title")
    @classmethod
    def _is_title(cls, value: str) -> str:
        return _title(value)

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return _address(value)

    @field_validator("peers")
    @classmethod
    def _are_peers(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        return {_title(title): [_address(each) for each in given] for title, given in value.items()}

    @model_validator(mode="after")
    def _shows_itself(self) -> Listener:
        if self.tls is not None and (self.tls.certificate is None or self.tls.ca is None):
            raise ValueError("a listener's 'tls' needs certificate, key and ca: it asks its peers for theirs")
        return self


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("write an IP address, such as 10.1.2.3") from None


class _Pacs(Strict):
    """What both kinds of access may say."""

    connect_s: Seconds = 10.0
    # the longest silence in the midst of an answer
    idle_s: Seconds = 60.0
    # the longest time for one object
    object_s: Seconds = 900.0
    # how often a transfer that broke off is begun again without getting on
    tries: Annotated[int, Field(ge=1, le=20)] = 4
    largest_mib: Annotated[int, Field(ge=1, le=64 * 1024)] = 2048
    # studies that one query may find
    most_studies: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    # SOP classes that are asked for beside those of images: UIDs, or pydicom's words
    classes: list[str] = Field(default_factory=list)
    listener: Listener | None = None

    @field_validator("classes")
    @classmethod
    def _are_classes(cls, value: list[str]) -> list[str]:
        return [named_class(each) for each in value]

    @property
    def wanted_classes(self) -> frozenset[str]:
        """UIDs of the SOP classes that are asked for."""
        return image_classes() | frozenset(self.classes)

    @property
    def largest(self) -> int:
        """The most bytes of one object."""
        return self.largest_mib * _MIB


class DicomWeb(_Pacs):
    """A PACS by DICOMweb: QIDO-RS and WADO-RS (PS3.18)."""

    kind: Literal["dicomweb"]
    url: str
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    # where the password stands: an environment variable, or a file that its owner alone can read
    password_env: str | None = None
    password_file: FilePath | None = None
    tls: Certified = Field(default_factory=Certified)
    # images and password may cross the network unencrypted
    clear_text: bool = False

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.username or parts.password:
            raise ValueError("no user or password in the URL; write 'user' and 'password_file' or 'password_env'")
        try:
            sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            sound = False
        if not sound or parts.query or parts.fragment:
            raise ValueError("write the root of the DICOMweb service, such as https://pacs.example:8443/dicom-web")
        return value.rstrip("/")

    @field_validator("password_env")
    @classmethod
    def _is_variable(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            # what stands there may be the password itself, and is not said again
            raise ValueError("it holds no name of an environment variable; never write the password itself here")
        return value

    @model_validator(mode="after")
    def _whole(self) -> DicomWeb:
        given = (self.password_env is not None) + (self.password_file is not None)
        if given != (self.user is not None):
            raise ValueError("a 'user' needs one of 'password_env' and 'password_file', and these need a user")
        if urlsplit(self.url).scheme == "http" and not self.clear_text and not is_here(self.host):
            raise ValueError(
                "'url' is http: images would cross the network unencrypted; use https, or write 'clear_text: true' "
                "where the hospital allows that"
            )
        return self

    @property
    def host(self) -> str:
        """The host of the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def place(self) -> str:
        """HOST:PORT for sentences."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


class Dimse(_Pacs):
    """A PACS by DIMSE: C-FIND, and C-GET or C-MOVE (PS3.4 Annex C)."""

    kind: Literal["dimse"]
    host: str
    port: Port
    # this site's own title, and that of the PACS
    ae_title: Title
    called: Title
    retrieve: Literal["get", "move"] = "get"
    tls: Certified | None = None
    clear_text: bool = False

    @field_validator("ae_title", "called")
    @classmethod
    def _is_title(cls, value: str) -> str:
        return _title(value)

    @field_validator("host")
    @classmethod
    def _is_host(cls, value: str) -> str:
        if not _HOST.fullmatch(value):
            raise ValueError("write the PACS's host name or address alone, without a port")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Dimse:
        if self.retrieve == "move" and self.listener is None:
            raise ValueError("'retrieve: move' needs a 'listener' that the PACS sends to")
        if self.tls is None and not self.clear_text and not is_here(self.host):
            raise ValueError(
                "without 'tls' images would cross the network unencrypted; add it, or write 'clear_text: true' "
                "where the hospital allows that"
            )
        return self

    @property
    def place(self) -> str:
        """HOST:PORT for sentences."""
        return f"{self.host}:{self.port}"


AnyPacs = DicomWeb | Dimse
PacsConfig = Annotated[AnyPacs, Field(discriminator="kind")]


def load_pacs(path: Path) -> AnyPacs:
    """Read `pacs.yaml`; its paths count from the working directory. Raises ConfigError."""
    kinds: dict[str, type[AnyPacs]] = {"dicomweb": DicomWeb, "dimse": Dimse}
    return load_kind(path, kinds)
