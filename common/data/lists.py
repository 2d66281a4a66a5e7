"""Lists of images as authors distribute them, matched to a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data.records import EXAMPLES, RecordTable
from common.data.tables import DataError


def read_list(path: Path, table: RecordTable) -> tuple[str, ...]:
    """Image ids of a list file as authors distribute them, in its order.

    One id or path a line, `path label label ...` separated by spaces, or a CSV with a column of
    `ID_COLUMNS`. A path is matched by its longest tail that names one image.

    Raises:
        DataError: If the file is unreadable, or a line names no image of `table`.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable list ({error})") from error
    names = _names(lines)
    by_tail = _tails(table)
    found = [_match(name, by_tail) for name in names]
    unknown = [name for name, match in zip(names, found, strict=True) if match is None]
    if unknown or not names:
        raise DataError(
            f"{path}: {len(unknown)} of {len(names)} lines name no image of {table.dataset} "
            f"(first: {unknown[:EXAMPLES]}); was the list made for another version?"
        )
    return tuple(match for match in found if match is not None)


ID_COLUMNS = (
    "image_id",
    "path",
    "image_path",
    "image",
    "image index",
    "dicom_id",
    "patientid",
    "id",
)


def _names(lines: Sequence[str]) -> list[str]:
    header = [cell.strip().lower() for cell in lines[0].split(",")] if lines else []
    columns = [header.index(name) for name in ID_COLUMNS if name in header]
    if columns:
        return [line.split(",")[columns[0]].strip() for line in lines[1:]]
    # A path may hold spaces, so the picture's suffix ends it where there is one.
    pattern = re.compile(r"^(.+?\.(?:jpe?g|png|dcm)|[^\s,]+)(?=[\s,]|$)", re.IGNORECASE)
    return [match[1] if (match := pattern.match(line)) else line for line in lines]


def _tails(table: RecordTable) -> dict[str, str | None]:
    """Every tail of every id and path, to the id; None where a tail names several images."""
    tails: dict[str, str | None] = {}
    for image_id, path in table.frame[["image_id", "path"]].to_numpy().tolist():
        for name in {image_id, path.rpartition(".")[0]}:
            parts = name.split("/")
            for start in range(len(parts)):
                tail = "/".join(parts[start:])
                tails[tail] = image_id if tails.get(tail, image_id) == image_id else None
    return tails


def _match(name: str, tails: Mapping[str, str | None]) -> str | None:
    stem = re.sub(r"\.(?:jpe?g|png|dcm)$", "", name, flags=re.IGNORECASE)
    parts = stem.split("/")
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        if tail in tails:
            return tails[tail]
    return None
