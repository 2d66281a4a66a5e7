"""MaCo Table 5: what reconstruction, contrast and weighting contribute."""

from benchmarks.core import Column, Row, Table
from benchmarks.models import MACO, MACO_CLIP, MACO_MAE
from benchmarks.tables.maco_table1 import FRACTIONS, RECIPE
from benchmarks.tables.maco_table4 import GROUNDING

TABLE = Table(
    id="maco-table5",
    title="MaCo Table 5: ablation, grounding (ratio) and fine-tuned RSNA (AUROC)",
    published="maco_table5.csv",
    rows=(
        Row("MAE", model=MACO_MAE),
        Row("+CLIP", model=MACO_CLIP),
        Row("+Interaction Weighted", model=MACO),
    ),
    columns=(
        *(
            Column(title, "ms_cxr", "grounding", metric, unit="ratio")
            for title, metric in (
                ("mIoU", "miou"),
                ("CNR", "cnr"),
                ("pointing game", "pointing_game"),
            )
        ),
        *(
            Column(f"RSNA {fraction:.0%}", "rsna", "finetune", "auroc", fraction)
            for fraction in FRACTIONS
        ),
    ),
    unit="%",
    footnotes=(
        GROUNDING,
        RECIPE,
        "MAE trains no report encoder and no projection: its grounding is that of random vectors.",
        "+CLIP: both losses, the contrast unweighted and in both directions.",
    ),
)
