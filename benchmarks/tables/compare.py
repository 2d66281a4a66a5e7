"""Five papers and their baselines side by side: one corpus, one protocol matrix."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import (
    CHEXZERO,
    CONVIRT_MGCA,
    CONVIRT_OWN,
    GLORIA_MIMIC,
    IMITATE,
    LRCLR,
    MACO,
    MGCA_RESNET,
    MGCA_VIT,
    RANDOM_IMITATE,
    RANDOM_MACO,
    RANDOM_RESNET,
    RANDOM_VIT,
)

FRACTIONS = (0.01, 0.1, 1.0)

TABLE = Table(
    id="compare",
    title="Side by side: every paper pre-trained on MIMIC-CXR, judged alike",
    published=None,
    rows=(
        Row("Random, as MGCA's ResNet", model=RANDOM_RESNET),
        Row("Random, as MGCA's ViT", model=RANDOM_VIT),
        Row("Random, as MaCo", model=RANDOM_MACO),
        Row("Random, as IMITATE", model=RANDOM_IMITATE),
        Row("ConVIRT", model=CONVIRT_OWN),
        Row("ConVIRT, as MGCA", model=CONVIRT_MGCA),
        Row("GLoRIA", model=GLORIA_MIMIC),
        Row("MGCA", model=MGCA_VIT, dense=MGCA_RESNET),
        Row("MaCo", model=MACO),
        Row("IMITATE", model=IMITATE),
        Row("CheXzero", model=CHEXZERO),
        Row("LRCLR", model=LRCLR),
    ),
    columns=(
        *(
            Column(f"{title} {fraction:.0%}", dataset, "linear", "auroc", fraction)
            for dataset, title in (("chexpert", "CheXpert"), ("rsna", "RSNA"))
            for fraction in FRACTIONS
        ),
        Column("RSNA zero-shot", "rsna", "zero_shot", "auroc", on="rsna_dense"),
        Column("5x200 P@10", "chexpert5x200", "retrieval", "precision_at_10"),
        *(
            Column(f"SIIM {fraction:.0%}", "siim", "segmentation", "dice_positives", fraction)
            for fraction in FRACTIONS
        ),
    ),
    unit="%",
    footnotes=(
        "CheXpert and RSNA: linear, AUROC; zero-shot: AUROC by a pair of prompts; 5x200: precision "
        "of image-to-report retrieval; SIIM: Dice over the images with a mask, U-Net on the frozen "
        "ResNet (MGCA's ResNet-50 model), MaCo by its own UPerNet.",
        "The same corpus, parts and label fractions; encoders keep each paper's own kind. Budgets "
        "are the presets': minutes of pre-training stand in the last lines. Linear classification "
        "is on cached features for all, segmentation on real data by each paper's own recipe (of "
        "GLoRIA's row MGCA's).",
        "Random rows have the encoder, input range and decoder of the paper that they name.",
    ),
)
