"""IMITATE Table II: sizes of the downstream splits, counted in the tables at hand."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import RANDOM_IMITATE

SETS = (
    ("chexpert", "linear", "CheXpert linear", ""),
    ("rsna", "linear", "RSNA linear", "rsna_dense"),
    ("covidx", "linear", "COVIDx linear", "covidx_80"),
    ("nih", "finetune", "NIH fine-tuned", "nih_kad"),
    ("rsna", "segmentation", "RSNA segmentation", "rsna_dense"),
    ("siim", "segmentation", "SIIM segmentation", ""),
    ("rsna", "detection", "RSNA detection", "rsna_dense"),
    ("object_cxr", "detection", "Object-CXR detection", ""),
    ("rsna", "zero_shot", "RSNA zero-shot", "rsna_dense"),
    ("siim", "zero_shot", "SIIM zero-shot", ""),
    ("chexpert5x200", "retrieval", "5x200 retrieval", ""),
)
"""Data set and task as published, title, and the split's own key where it differs."""
ONLY_TEST = ("zero_shot", "retrieval")

TABLE = Table(
    id="imitate-table2",
    title="IMITATE Table II: images of the downstream splits",
    published="imitate_table2.csv",
    rows=(Row("images", model=RANDOM_IMITATE, published_as=""),),
    columns=tuple(
        Column(f"{title}, {part}", dataset, task, f"n_{part}", on=on, by="splits")
        for dataset, task, title, on in SETS
        for part in ("train", "valid", "test")
        if part == "test" or task not in ONLY_TEST
    ),
    unit="images",
    footnotes=(
        "On real data the second block must equal the first but for three: CheXpert trains on "
        "185,027, the printed 186,027 holds the 1,000 of 5x200 that retrieval tests on; SIIM's "
        "draw of 12,047 rounds to 8,432 / 1,808 / 1,807; COVIDx's printed counts are 80/20 of "
        "the binary list CXR-3B, which has no three classes, ours of the A lists. The phantom "
        "corpus is small.",
        "RSNA's equal counts hide two draws: MGCA's for classification, segmentation and "
        "detection, LoVT's for zero-shot; they share 1,022 test images. Ours is MGCA's; "
        "`--split rsna/lovt-lists` reads LoVT's lists where the user has them.",
    ),
)
