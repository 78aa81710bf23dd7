"""Parquet files in the layout that Hugging Face `datasets` writes: images as bytes, labels as ClassLabel."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sfumato_common.errors import VerificationError
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.publish.formats.base import About, Format, Place, Shard, fitting, pixel_bytes
from sfumato_server.publish.formats.png import decoded, packed
from sfumato_server.publish.manifest import ImageEntry
from sfumato_server.publish.reading import PublishedImage

_SHARD, _GROUP = 256_000_000, 32_000_000  # bytes
_BESIDE = 4096
# PNG is packed already; dictionaries serve the few words that repeat; what a reader skips rows by is not there to lie
_FORM = {
    "compression": "none",
    "use_dictionary": ["site", "model", "method"],
    "write_statistics": False,
    "write_page_checksum": True,
}
_MAGIC = b"PAR1"
_TEXTS = ("name", "site", "model", "method", "guarantee", "pixel_sha256")


def _per_shard(plan: Plan) -> int:
    return fitting(plan, _SHARD, 10 * _group(plan), _BESIDE)


def _group(plan: Plan) -> int:
    """Rows of a row group: what a reader holds at once."""
    return fitting(plan, _GROUP, 1000, _BESIDE)


def _file(shard: Shard) -> str:
    return f"data/train-{shard.number:05d}-of-{shard.of:05d}.parquet"


def _places(shard: Shard, about: About) -> Sequence[Place]:
    return [Place(_file(shard), entry.name) for entry in shard.entries]


def _schema(plan: Plan) -> Any:
    """Columns, and how `datasets` reads them (its `Features`, under the key 'huggingface')."""
    import pyarrow as pa

    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(plan.labels), "_type": "ClassLabel"},
        **{name: {"dtype": "string", "_type": "Value"} for name in _TEXTS},
    }
    said = json.dumps({"info": {"features": features}})
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("image", image), ("label", pa.int64()), *((name, pa.string()) for name in _TEXTS)]
    return pa.schema(columns, metadata={"huggingface": said})


def _facts(entry: ImageEntry, plan: Plan) -> dict[str, Any]:
    return {"label": plan.labels.index(entry.label), **{name: getattr(entry, name) for name in _TEXTS}}


def _write(folder: Path, shard: Shard, images: Iterable[PublishedImage], about: About) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, schema = folder / _file(shard), _schema(about.plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, **_FORM) as writer:
        for number, image in enumerate(images, 1):
            picture = {"bytes": packed(image), "path": f"{image.entry.name}.png"}
            rows.append({"image": picture, **_facts(image.entry, about.plan)})
            if len(rows) == _group(about.plan) or number == len(shard.entries):
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []


def _read(folder: Path, shard: Shard, about: About) -> Iterator[tuple[str, AnyArray]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, group = _file(shard), _group(about.plan)
    try:
        with pq.ParquetFile(folder / file, page_checksum_verification=True) as parquet:
            _check_form(parquet, file, shard, about.plan)
            if not _is_whole(folder / file, parquet.metadata):
                raise VerificationError(f"{file} holds something between or beside its columns")
            for number in range(parquet.num_row_groups):
                own = shard.entries[number * group : (number + 1) * group]
                for entry, row in zip(own, parquet.read_row_group(number).to_pylist(), strict=True):
                    yield entry.name, _picture(row, entry, about.plan, file)
    except (OSError, pa.ArrowException, ValueError):
        raise VerificationError(f"{file} is missing or no Parquet file of this form") from None


def _check_form(parquet: Any, file: str, shard: Shard, plan: Plan) -> None:
    """Columns, row groups and sizes are those that this format writes: nothing is unpacked before that holds."""
    schema, group, said = _schema(plan), _group(plan), parquet.metadata.metadata or {}
    if not parquet.schema_arrow.equals(schema, check_metadata=True) or set(said) != {b"ARROW:schema", b"huggingface"}:
        raise VerificationError(f"{file} has other columns than a converted set")
    rows = [min(group, len(shard.entries) - at) for at in range(0, len(shard.entries), group)]
    groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
    if [one.num_rows for one in groups] != rows:
        raise VerificationError(f"{file} holds another number of images than the signed manifest")
    if any(one.total_byte_size > one.num_rows * (2 * pixel_bytes(plan) + 8 * _BESIDE) for one in groups):
        raise VerificationError(f"{file} is larger than images of the study can be")


def _is_whole(path: Path, metadata: Any) -> bool:
    """Whether the columns fill the file, one behind another, from its first mark to the footer (Parquet's own form)."""
    at = len(_MAGIC)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            begins = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
            if begins != at:
                return False
            at += column.total_compressed_size
    with path.open("rb") as stream:
        first = stream.read(len(_MAGIC))
        stream.seek(-8, 2)
        footer, last = int.from_bytes(stream.read(4), "little"), stream.read(4)
        return (first, last, stream.tell()) == (_MAGIC, _MAGIC, at + footer + 8)


def _picture(row: dict[str, Any], entry: ImageEntry, plan: Plan, file: str) -> AnyArray:
    image = row.pop("image") or {}
    if row != _facts(entry, plan) or image.get("path") != f"{entry.name}.png":
        raise VerificationError(f"{file}: the row of {entry.name} does not say what the signed entry says")
    return decoded(image.get("bytes") or b"", f"{file}: {entry.name}")


PARQUET = Format(
    name="parquet",
    purpose="tables with the images in them, for Hugging Face `datasets`, pandas, DuckDB or Spark",
    needs=("pyarrow",),
    opened_by='datasets.load_dataset("DIR")',
    per_shard=_per_shard,
    places=_places,
    write=_write,
    read=_read,
)
