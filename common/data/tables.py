"""Reading tables: strings stay strings, columns go by name, errors name the file."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

STATES = (1.0, 0.0, -1.0)


class DataError(Exception):
    """A data set is not as expected; the message names file, expectation and what to do."""


def first_home(
    data_root: Path,
    candidates: Sequence[str],
    holds: Callable[[Path], bool],
    *,
    dataset: str,
    wanted: str,
) -> Path:
    """The first folder of `candidates` below `data_root` for which `holds` is true.

    Raises:
        DataError: If none is; says what was `wanted` and lists every place looked in.
    """
    for name in candidates:
        if holds(data_root / name):
            return data_root / name
    looked = "".join(f"\n  {data_root / name}" for name in candidates)
    raise DataError(f"{dataset} is missing; looked for {wanted} in:{looked}")


def has_table(folder: Path, name: str) -> bool:
    """Whether `find_table` would find `name` there."""
    return any((folder / f"{name}{end}").is_file() for end in ("", ".gz"))


def find_table(root: Path, name: str) -> Path:
    """`name` or `name.gz` below `root`.

    Raises:
        DataError: If neither exists, or both do with different content.
    """
    plain, packed = root / name, root / f"{name}.gz"
    if plain.is_file() and packed.is_file():
        if not _read(plain).equals(_read(packed)):
            raise DataError(
                f"{plain} ({table_sha256(plain)[:12]}) and {packed.name} "
                f"({table_sha256(packed)[:12]}) differ; keep the one you mean"
            )
        return plain
    for path in (plain, packed):
        if path.is_file():
            return path
    raise DataError(f"{root} holds neither {name} nor {name}.gz; is the download complete?")


def read_table(
    path: Path, columns: Iterable[str], *, alias: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """A CSV as strings, columns stripped and renamed by `alias`.

    Raises:
        DataError: If the file is unreadable or lacks one of `columns`.
    """
    frame = _read(path)
    frame.columns = [str(name).strip() for name in frame.columns]
    frame = frame.rename(columns=dict(alias or {}))
    missing = [name for name in columns if name not in frame]
    if missing:
        raise DataError(f"{path}: no column {missing}; it has {list(frame.columns)}")
    return frame


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError, EOFError, zlib.error) as error:  # pandas' own are ValueErrors
        raise DataError(f"{path}: not a readable CSV table ({error})") from error


def read_labels(frame: pd.DataFrame, names: Sequence[str], *, path: Path) -> pd.DataFrame:
    """The label columns `names` as floats 1, 0, -1 or NaN (blank).

    Raises:
        DataError: If a cell holds anything else; names column, value and row.
    """
    labels = {}
    for name in names:
        text = frame[name].str.strip()
        values = pd.to_numeric(text.replace("", np.nan), errors="coerce")
        bad = (text != "") & ~values.isin(STATES)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{path}: {name!r} is {text.iloc[row]!r} in data row {row + 1}; "
                "expected 1, 0, -1 or blank"
            )
        labels[name] = values.astype("float32")
    return pd.DataFrame(labels, index=frame.index)


def resolve_inside(root: Path, relative: str) -> Path:
    """`root / relative`, refused when it would leave `root`.

    Raises:
        DataError: If `relative` is absolute or climbs out.
    """
    if relative.startswith("/") or ".." in Path(relative).parts:
        raise DataError(
            f"{relative!r} points outside {root}; the table was edited or is not trusted"
        )
    return root / relative


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table_sha256(*paths: Path) -> str:
    """One hash over what tables hold, in the order given; packed or not makes no difference."""
    digest = hashlib.sha256()
    for path in paths:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def files_below(root: Path, suffixes: Sequence[str]) -> dict[str, int]:
    """Relative POSIX path to size in bytes of every file below `root` with one of `suffixes`.

    One walk. Linked folders are entered, unless they lead back to where the walk came from; a link
    to nothing is listed: its reader will say what is wrong. Names compare case-sensitively,
    suffixes do not.

    Raises:
        DataError: If a folder cannot be read.
    """
    found: dict[str, int] = {}
    wanted = tuple(suffix.lower() for suffix in suffixes)
    left_at: dict[str, tuple[Path, ...]] = {}  # real folders whose links led to a folder
    for folder, below, names in os.walk(root, followlinks=True, onerror=_unreadable):
        behind = left_at.pop(folder, ())
        for path in [Path(folder, name) for name in below]:
            if not path.is_symlink():
                left_at |= {str(path): behind} if behind else {}
                continue
            places = (*behind, Path(folder).resolve())
            if any(place.is_relative_to(path.resolve()) for place in places):
                below.remove(path.name)
            else:
                left_at[str(path)] = places
        for name in names:
            if name.lower().endswith(wanted):
                path = Path(folder, name)
                size = path.stat().st_size if path.exists() else path.lstat().st_size
                found[path.relative_to(root).as_posix()] = size
    return found


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
