"""Chest X-ray data sets: one loader module each, all returning `records.RecordTable`.

`load("rsna", data_root)` reads the first layout found; a loader's own `load` has more options.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from common.data import (
    chexpert,
    chexpert_test,
    covidx,
    mimic_cxr,
    ms_cxr,
    nih,
    object_cxr,
    open_i,
    rsna,
    siim,
)
from common.data.records import RecordTable
from common.data.tables import DataError

DATASETS: dict[str, ModuleType] = {
    "chexpert": chexpert,
    "chexpert_test": chexpert_test,
    "covidx": covidx,
    "mimic": mimic_cxr,
    "ms_cxr": ms_cxr,
    "nih": nih,
    "object_cxr": object_cxr,
    "open_i": open_i,
    "rsna": rsna,
    "siim": siim,
}
"""Registry id to loader module."""


def load(dataset: str, data_root: Path, *, check_files: bool = True) -> RecordTable:
    """The table of a data set with its loader's defaults.

    Raises:
        DataError: If the id is unknown, or the data set is absent or malformed.
    """
    if dataset not in DATASETS:
        raise DataError(f"unknown data set {dataset!r}; choose one of {', '.join(DATASETS)}")
    table: RecordTable = DATASETS[dataset].load(data_root, check_files=check_files)
    return table


def load_tables(dataset: str, data_root: Path) -> RecordTable:
    """The table alone, without image files or report texts: what splits are drawn from."""
    if dataset == "mimic":  # its reports are 227,835 files
        return mimic_cxr.load(data_root, check_files=False, with_reports=False)
    return load(dataset, data_root, check_files=False)
