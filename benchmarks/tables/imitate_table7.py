"""IMITATE Table VII: image-report retrieval on CheXpert 5x200."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import CONVIRT_MGCA, GLORIA, IMITATE, RANDOM_IMITATE

TABLE = Table(
    id="imitate-table7",
    title="IMITATE Table VII: image-to-report retrieval on CheXpert 5x200, precision",
    published="imitate_table7.csv",
    rows=(
        Row("Random Init", model=RANDOM_IMITATE, ours=True),
        Row("ConVIRT", model=CONVIRT_MGCA),
        Row("GLoRIA", model=GLORIA),
        Row("IMITATE", model=IMITATE),
    ),
    columns=tuple(
        Column(f"P@{k}", "chexpert5x200", "retrieval", f"precision_at_{k}") for k in (5, 10, 100)
    ),
    unit="%",
    footnotes=(
        "Candidates are the impressions of the 5x200 images; the paper copies the others' numbers "
        "from GLoRIA's. Its reports were private, ours are CheXpert Plus's.",
        "GLoRIA has seen CheXpert in pre-training, the others MIMIC-CXR alone.",
    ),
)
