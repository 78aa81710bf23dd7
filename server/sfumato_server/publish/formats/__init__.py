"""The forms in which people want a published set, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

from sfumato_common.errors import ConfigError
from sfumato_server.publish.formats.base import About, Format, Place, Shard
from sfumato_server.publish.formats.dicom import DICOM
from sfumato_server.publish.formats.dicom_frames import DICOM_FRAMES
from sfumato_server.publish.formats.parquet import PARQUET
from sfumato_server.publish.formats.png import PNG
from sfumato_server.publish.formats.webdataset import WEBDATASET

_ALL = (
    PNG,
    DICOM,
    DICOM_FRAMES,
    WEBDATASET,
    PARQUET,
)
FORMATS: Mapping[str, Format] = MappingProxyType({form.name: form for form in _ALL})


def format_of(name: str) -> Format:
    """The format of that name, ready to be used. Raises ConfigError where there is none, or a package is missing."""
    if name not in FORMATS:
        raise ConfigError(f"unknown format '{name}'; choose one of {', '.join(FORMATS)}")
    form = FORMATS[name]
    if missing := [package for package in form.needs if find_spec(package) is None]:
        raise ConfigError(f"'{name}' needs {missing[0]}: pip install 'sfumato-coordinator[formats]'")
    return form


__all__ = ["FORMATS", "About", "Format", "Place", "Shard", "format_of"]
