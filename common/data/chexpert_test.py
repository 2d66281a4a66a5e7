"""CheXpert's expert-labelled test set, 668 images of 500 studies, as a data set of its own.

Origin, access and layouts: see `common.data.chexpert`, whose `load_test` reads it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.data import chexpert
from common.data.records import RecordTable


def load(data_root: Path, *, check_files: bool = True) -> RecordTable:
    """`chexpert.load_test` under the id `chexpert_test`.

    Raises:
        DataError: If its tables are absent, malformed, or contradict each other.
    """
    table = chexpert.load_test(data_root, check_files=check_files)
    return replace(table, dataset="chexpert_test")
