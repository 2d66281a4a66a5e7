"""Controls that no paper prints: is MaCo's grounding more than a prior of place?"""

from benchmarks.core import Column, Row, Table
from benchmarks.models import MACO, MACO_CLIP, RANDOM_MACO

TABLE = Table(
    id="maco-controls",
    title="MaCo controls: phrase grounding against an untrained model and a centre prior",
    published=None,
    rows=(
        Row("untrained", model=RANDOM_MACO),
        Row("MAE + CLIP", model=MACO_CLIP),
        Row("MaCo", model=MACO),
    ),
    columns=tuple(
        Column(title, "ms_cxr", "grounding", metric)
        for title, metric in (
            ("mIoU", "miou"),
            ("CNR", "cnr"),
            ("pointing game", "pointing_game"),
            ("CNR of the centre prior", "cnr_centre_prior"),
            ("pointing game of the centre prior", "pointing_game_centre_prior"),
        )
    ),
    unit="ratio",
    footnotes=("The centre prior falls off with the distance from the centre of the image.",),
)
