"""A PACS by DICOMweb: QIDO-RS by dicomweb-client, WADO-RS by a reader of our own, in constant memory (PS3.18 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom.uid import UID
from requests.auth import HTTPBasicAuth

from sfumato_client.pacs.bounded import BoundedAdapter, TooLongError, TooMuchError
from sfumato_client.pacs.incoming import Expected, Incoming, RejectedObjectError
from sfumato_client.pacs.multipart import BrokenAnswerError, boundary_of, write_part
from sfumato_client.pacs.query import InterruptedTransferError, Query, Refused, Study, limited
from sfumato_client.pacs.secrets import password
from sfumato_client.pacs.settings import DicomWeb
from sfumato_common.errors import ConfigError, PacsError

_PAGE = 200
_ANSWER_BYTES = 64 * 1024**2  # of one page of a query
_PIECE = 64 * 1024
_DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_STUDY_TAGS = {
    "study": "0020000D",
    "date": "00080020",
    "modalities": "00080061",
    "description": "00081030",
    "accession": "00080050",
    "patient": "00100020",
    "objects": "00201208",
}
_NO_JSON = "{} answers the query with something else than DICOM JSON; check the path of 'url'"
_SERIES, _INSTANCE, _CLASS, _MODALITY = "0020000E", "00080018", "00080016", "00080060"
_BUSY = (408, 425, 429, 500, 502, 503, 504)


class DicomWebArchive:
    """An `Archive` (query.py) by DICOMweb."""

    together = 100

    def __init__(self, pacs: DicomWeb) -> None:
        self._pacs, self._answered = pacs, False
        _check_files(pacs)
        login = None if pacs.user is None else HTTPBasicAuth(pacs.user.encode(), password(pacs).encode())
        self._objects = _session(pacs, login, pacs.largest + _PIECE)
        self._timeout = (pacs.connect_s, pacs.idle_s)
        queries = _session(pacs, login, _ANSWER_BYTES)
        self._client = DICOMwebClient(pacs.url, session=queries, timeout=self._timeout)
        self._client.set_http_retry_params(retry=False)  # `fetch` tries again, and says so
        self._sessions = (self._objects, queries)

    def close(self) -> None:
        """Close connections."""
        for session in self._sessions:
            session.close()

    def studies(self, query: Query) -> Iterator[Study]:
        """The studies that fit, each once."""
        return limited(self._found(query), query, self._pacs.most_studies)

    def _found(self, query: Query) -> Iterator[Study]:
        filters = {"StudyDate": query.dates} if query.dates else {}
        for modality, accession in query.asked:
            keys = {"ModalitiesInStudy": modality, "AccessionNumber": accession}
            own = filters | {key: value for key, value in keys.items() if value}
            for item in self._pages(self._client.search_for_studies, own, list(_STUDY_TAGS.values()), "study"):
                if UID(_first(item, _STUDY_TAGS["study"])).is_valid:
                    yield _study(item)

    def objects(self, study: str, modalities: Sequence[str]) -> list[Expected]:
        """The objects of a study, of series of these modalities where some are named."""

        def search(**terms: Any) -> Any:
            return self._client.search_for_instances(study, **terms)

        found = dict[str, Expected]()
        for item in self._pages(search, {}, [_MODALITY, _CLASS], "instance"):
            modality = _first(item, _MODALITY).upper()
            if modalities and modality and modality not in modalities:
                continue
            wanted = Expected(study, _first(item, _SERIES), _first(item, _INSTANCE), _first(item, _CLASS))
            if _sound(wanted):
                found[wanted.instance] = wanted
        return sorted(found.values(), key=lambda each: (each.series, each.instance))

    def _pages(self, search: Any, filters: dict[str, str], fields: list[str], level: str) -> Iterator[dict[str, Any]]:
        """All answers of a query, page by page, until one has nothing that is new."""
        key = _STUDY_TAGS["study"] if level == "study" else _INSTANCE
        seen = set[str]()
        at = 0
        while True:
            try:
                with self._spoken():
                    page = search(search_filters=filters, fields=fields, limit=_PAGE, offset=at)
            except RejectedObjectError:
                raise ConfigError(
                    f"{self._pacs.place} has no DICOMweb service where 'url' says; check its path"
                ) from None
            if not isinstance(page, list):
                raise PacsError(_NO_JSON.format(self._pacs.place))
            new = 0
            for item in page:
                if isinstance(item, dict) and (uid := _first(item, key)) and uid not in seen:
                    seen.add(uid)
                    new += 1
                    yield item
            if not new:  # a short page need not be the last: the server may have a smaller one
                return
            at += len(page)

    def retrieve(self, wanted: Sequence[Expected], incoming: Incoming, refused: Refused) -> None:
        """Have objects sent one by one, so that each is whole in a file before the next is asked for."""
        for each in wanted:
            try:
                self._retrieve_one(each, incoming)
            except RejectedObjectError as reason:
                refused[each.instance] = str(reason)

    def _retrieve_one(self, wanted: Expected, incoming: Incoming) -> None:
        url = f"{self._pacs.url}/studies/{wanted.study}/series/{wanted.series}/instances/{wanted.instance}"
        with self._spoken(), incoming.part() as (stream, part):
            with self._objects.get(url, headers={"Accept": _DICOM}, stream=True, timeout=self._timeout) as response:
                response.raise_for_status()
                boundary = boundary_of(response.headers.get("Content-Type", ""))
                write_part(response.iter_content(_PIECE), boundary, stream)
            stream.flush()
            incoming.keep(part, wanted)

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """What can go wrong between here and the PACS, as one sentence without a URL's or a patient's value."""
        place = self._pacs.place
        try:
            yield
            self._answered = True
        except requests.exceptions.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            raise _refusal(status, place) from None
        except requests.exceptions.SSLError as error:
            if "VERSION_NUMBER" in str(error).upper():
                raise ConfigError(
                    f"{place} speaks no TLS that this site speaks; check host and port of 'url'"
                ) from None
            raise ConfigError(
                f"the certificate that {place} shows is not to be trusted: it is not signed by the CA of 'tls.ca', "
                "names another host, has ended, or the PACS does not take ours; check 'tls'"
            ) from None
        except requests.exceptions.TooManyRedirects:
            raise ConfigError(f"{place} sends on to another address, a login page for example; check 'url'") from None
        except (requests.exceptions.ConnectTimeout, requests.exceptions.ReadTimeout, TooLongError):
            raise InterruptedTransferError(f"{place} did not answer in time") from None
        except TooMuchError:
            raise RejectedObjectError("what came is larger than 'largest_mib' allows") from None
        except BrokenAnswerError as reason:
            raise RejectedObjectError(str(reason)) from None
        except requests.exceptions.JSONDecodeError:
            raise PacsError(_NO_JSON.format(place)) from None
        except requests.exceptions.RequestException as error:
            if "timed out" in str(error):  # in the midst of a body
                raise InterruptedTransferError(f"{place} did not answer in time") from None
            # what never answered will not in a second: its description is wrong
            raise (InterruptedTransferError if self._answered else PacsError)(_broken(error, place)) from None


def _check_files(pacs: DicomWeb) -> None:
    tls = pacs.tls
    for name, path in (("ca", tls.ca), ("certificate", tls.certificate), ("key", tls.key)):
        if path is not None and not path.is_file():
            raise ConfigError(f"'tls.{name}': there is no file '{path.name}'; check the path")
    if tls.name is not None:
        raise ConfigError("'tls.name' is for DIMSE; by DICOMweb the certificate has to name the URL's host")


def _session(pacs: DicomWeb, login: HTTPBasicAuth | None, largest: int) -> requests.Session:
    """A session whose answers are bounded, and which goes nowhere but where `pacs` says."""
    session = requests.Session()
    session.trust_env = False  # no proxy and no .netrc of the environment
    session.max_redirects = 0
    for scheme in ("http://", "https://"):
        session.mount(scheme, BoundedAdapter(largest, pacs.object_s))
    if pacs.tls.ca is not None:
        session.verify = str(pacs.tls.ca)
    if pacs.tls.certificate is not None:
        session.cert = (str(pacs.tls.certificate), str(pacs.tls.key))
    session.auth = login
    return session


def _refusal(status: int, place: str) -> Exception:
    if status in (401, 403):
        return ConfigError(f"{place} refuses user or password ({status}); check 'user' and where the password stands")
    if status in _BUSY:
        return InterruptedTransferError(f"{place} answers that it cannot now ({status})")
    if status == 404:
        return RejectedObjectError("the PACS does not find what was asked for (404)")
    return PacsError(f"{place} refuses the request ({status}); check 'url', and ask its people")


def _broken(error: Exception, place: str) -> str:
    said = str(error)
    if "refused" in said:
        return f"nothing listens at {place}; check host and port of 'url'"
    if "resolve" in said or "getaddrinfo" in said:
        return f"no address is known for the host of {place}; check 'url'"
    return f"the connection to {place} broke off, or what listens there speaks no HTTP as 'url' says"


def _study(item: dict[str, Any]) -> Study:
    said = {name: _first(item, tag) for name, tag in _STUDY_TAGS.items()}
    objects = said["objects"]
    return Study(
        said["study"],
        said["date"],
        tuple(str(each).upper() for each in _values(item, _STUDY_TAGS["modalities"])),
        said["description"],
        said["accession"],
        said["patient"],
        int(objects) if objects.isdecimal() and len(objects) < 9 else None,
    )


def _sound(wanted: Expected) -> bool:
    """UIDs that may stand in a URL: a server's answer is no place from which paths come."""
    return all(UID(uid).is_valid for uid in (wanted.study, wanted.series, wanted.instance))


def _values(item: dict[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _first(item: dict[str, Any], tag: str) -> str:
    """The first value of an element of DICOM JSON (PS3.18 F.2) as text."""
    values = _values(item, tag)
    return " ".join(str(values[0]).split()) if values and isinstance(values[0], str | int | float) else ""
