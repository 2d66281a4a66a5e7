"""`python -m common.data verify|prepare|phantom`: check, prepare and make corpora."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from common.data import chexpert, load
from common.data.phantom.faults import plant_faults
from common.data.phantom.writers import LAYOUTS, contact_sheet, write_corpus
from common.data.prepare import PreparedImages, prepare
from common.data.records import EXAMPLES, RecordTable
from common.data.tables import DataError
from common.data.verify import verify

CLEAN = (*("chexpert", "covidx", "mimic", "ms_cxr", "nih", "object_cxr", "open_i", "rsna", "siim"),)


@dataclass(frozen=True)
class Verify:
    """Report what is there, missing or corrupt, against known counts; status 1 on any problem."""

    data_root: Path = Path("data/phantom-small")
    """Folder of the corpora."""
    datasets: tuple[str, ...] = ()
    """Data sets to check; all that are there by default."""
    decode: bool = True
    """Decode every image instead of reading headers only."""
    workers: int = 2
    """Threads."""

    def run(self) -> int:
        """Print the report."""
        report = verify(
            self.data_root, self.datasets or None, decode=self.decode, workers=self.workers
        )
        print(report)
        found = any(present.roots for present in report.datasets)
        return int(bool(report.problems) or not found)


@dataclass(frozen=True)
class Prepare:
    """Decode a data set once: resized 8-bit images, sections and labels as an Arrow data set."""

    dataset: str
    """Data set to prepare."""
    data_root: Path = Path("data/phantom-small")
    """Folder of the corpora; the result goes to its folder `prepared`."""
    size: int = 256
    """Side of the square images, pixels: `image.size` of the paper's preset."""
    workers: int = 2
    """Processes."""

    def run(self) -> int:
        """Prepare and print what was left out."""
        table = with_reports(load(self.dataset, self.data_root), self.data_root)
        folder = prepare(table, self.data_root, size=self.size, workers=self.workers)
        made = PreparedImages(folder)
        print(f"{folder}: {len(made.row)} images; left out: {made.table().exclusions}")
        for message in list(made.manifest["unreadable"].values())[:EXAMPLES]:
            print(f"  {message}")
        return 0


@dataclass(frozen=True)
class Phantom:
    """Write the synthetic corpus in the layouts of the real data sets."""

    out: Path = Path("data/phantom-small")
    """Corpus root, to be used as a data root."""
    size: Literal["ci", "small", "bench"] = "small"
    """60, 4,000 or 10,000 studies a data set."""
    datasets: tuple[str, ...] = CLEAN
    """Layouts to write."""
    seed: int = 0
    """Another seed gives other studies."""
    workers: int = 2
    """Processes."""
    faults: bool = False
    """Damage the corpus in known ways, listed in faults.json; `verify` must find just these."""

    def run(self) -> int:
        """Write, and print where a contact sheet lies."""
        unknown = sorted(set(self.datasets) - set(LAYOUTS))
        if unknown:
            raise DataError(f"no phantom layout {unknown}; choose from {', '.join(LAYOUTS)}")
        counts = write_corpus(
            self.out, size=self.size, datasets=self.datasets, seed=self.seed, workers=self.workers
        )
        if self.faults:
            faults = plant_faults(self.out, datasets=self.datasets)
            print(f"{len(faults)} faults in {self.out / 'faults.json'}")
        sheet = contact_sheet(self.out, self.out / "contact_sheet.png")
        print(f"{self.out}: {counts}; contact sheet: {sheet}")
        return 0


def with_reports(table: RecordTable, data_root: Path) -> RecordTable:
    """CheXpert with the sections of CheXpert Plus where they exist; other tables as they are."""
    if table.dataset != "chexpert":
        return table
    try:
        reports = chexpert.load_reports(data_root)
    except DataError as error:
        sys.stderr.write(f"no reports: {error}\n")
        return table
    return chexpert.join_reports(table, reports, keep_unmatched=True)


def main() -> int:
    """Command line; errors that concern the user end in one line."""
    warnings.filterwarnings("ignore", module="pydicom")
    command = tyro.cli(
        Verify | Prepare | Phantom,
        prog="python -m common.data",
        description=__doc__,
    )
    try:
        return command.run()
    except (DataError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command again\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
