"""The models that tables compare; light to import, so that planning is quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.blip import PRESETS as BLIP_PRESETS
from benchmarks.core import Model
from common import config
from convirt.config import PRESETS as CONVIRT_PRESETS
from gloria.config import PRESETS as GLORIA_PRESETS
from imitate.config import PRESETS as IMITATE_PRESETS
from lrclr.config import PRESETS as LRCLR_PRESETS
from maco.config import PRESETS as MACO_PRESETS
from mgca.config import PRESETS as MGCA_PRESETS

ONLY_GLOBAL = ("--loss.local-weight", "0", "--model.similarity.use", "global")
ONLY_LOCAL = ("--loss.global-weight", "0", "--model.similarity.use", "local")
ON_MIMIC = ("--data.dataset", "mimic", "--data.split", "mimic/official")
UNTRAINED = ("--model.image.weights", "none")
FROM_IMAGENET = ("--model.image.weights", "imagenet")

GLORIA = Model("gloria", "gloria")
GLORIA_MIMIC = Model("gloria-mimic", "gloria", ON_MIMIC, judged_by="mgca")
GLOBAL_ONLY = Model("gloria-global-only", "gloria", ONLY_GLOBAL)
LOCAL_ONLY = Model("gloria-local-only", "gloria", ONLY_LOCAL)
CONVIRT = Model(
    "convirt-gloria",
    "gloria",
    # ConVIRT Appendix A: lambda 0.75, temperature 0.1; encoders and heads are GLoRIA's
    (
        *(*ONLY_GLOBAL, "--loss.tau1", "0.1"),
        *("--loss.image-to-text", "0.75", "--loss.text-to-image", "0.25"),
    ),
)
SHUFFLED = Model("gloria-shuffled", "gloria", ("--data.shuffle-pairs",))
RANDOM = Model("random", "gloria", UNTRAINED, pretrained=False)
IMAGENET = Model("imagenet", "gloria", FROM_IMAGENET, pretrained=False)

NO_CTA, NO_CPA = ("--loss.cta-weight", "0"), ("--loss.cpa-weight", "0")
MGCA_VIT = Model("mgca-vit", "mgca")
MGCA_RESNET = Model("mgca-resnet50", "mgca", variant="resnet50")
# ledger D51: the released baseline is MGCA's instance contrast at temperature 0.07
CONVIRT_MGCA = Model(
    "convirt-mgca", "mgca", (*NO_CTA, *NO_CPA, "--loss.tau-ita", "0.07"), variant="resnet50"
)
ITA_VIT = Model("mgca-ita-vit", "mgca", (*NO_CTA, *NO_CPA))
ITA_CTA_VIT = Model("mgca-ita-cta-vit", "mgca", NO_CPA)
ITA_CPA_VIT = Model("mgca-ita-cpa-vit", "mgca", NO_CTA)
ITA_RESNET = Model("mgca-ita-resnet50", "mgca", (*NO_CTA, *NO_CPA), variant="resnet50")
ITA_CTA_RESNET = Model("mgca-ita-cta-resnet50", "mgca", NO_CPA, variant="resnet50")
ITA_CPA_RESNET = Model("mgca-ita-cpa-resnet50", "mgca", NO_CTA, variant="resnet50")
RANDOM_VIT = Model("random-mgca-vit", "mgca", UNTRAINED, pretrained=False)
RANDOM_RESNET = Model(
    "random-mgca-resnet50", "mgca", UNTRAINED, pretrained=False, variant="resnet50"
)
IMAGENET_RESNET = Model(
    "imagenet-mgca-resnet50", "mgca", FROM_IMAGENET, pretrained=False, variant="resnet50"
)
MACO = Model("maco", "maco")
MACO_MAE = Model("maco-mae", "maco", ("--loss.mae-weight", "1", "--loss.align-weight", "0"))
# ledger B1: CLIP's loss is symmetric and unweighted
MACO_CLIP = Model(
    "maco-clip", "maco", ("--loss.weighting", "none", "--loss.align-direction", "symmetric")
)
# ledger L1b: as printed a high importance flattens its row, as released it sharpens it
MACO_RELEASED_WEIGHTING = Model("maco-released-weighting", "maco", ("--loss.weighting", "released"))
# ledger L3b: scaled rows of texts know the masks of their images
MACO_PLAIN_TEXTS = Model(
    "maco-plain-texts", "maco", (*MACO_RELEASED_WEIGHTING.flags, "--loss.no-scale-texts")
)
# 8,000 studies, 1.8 times the preset's steps: with its own augmentation, and the published one
MACO_UNMIRRORED = Model(
    "maco-released-weighting-unmirrored",
    "maco",
    (
        *MACO_RELEASED_WEIGHTING.flags,
        *("--data.sentence-split", "sentences"),
        *("--optim.epochs", "24", "--optim.warmup-epochs", "0.4"),
    ),
)
MACO_MORE_STUDIES = Model(
    "maco-released-weighting-more-studies",
    "maco",
    (
        *MACO_UNMIRRORED.flags,
        *("--data.flip", "0.5", "--data.rotate", "20", "--data.scale", "0.8", "1.2"),
    ),
)
RANDOM_MACO = Model("random-maco", "maco", ("--model.image.weights", "None"), pretrained=False)
BLIP = Model("blip", "blip", pretrained=False, judged_by="mgca")
CONVIRT_OWN = Model("convirt", "convirt", judged_by="mgca")
CONVIRT_IMPRESSION = Model("convirt-impression", "convirt", ("--data.section", "impression"))
"""LRCLR's reading (its ledger's L24)."""

IMITATE = Model("imitate", "imitate")
RANDOM_IMITATE = Model("random-imitate", "imitate", UNTRAINED, pretrained=False)
IMAGENET_IMITATE = Model("imagenet-imitate", "imitate", FROM_IMAGENET, pretrained=False)


def ablation(name: str, *flags: str, not_on_phantom: str = "") -> Model:
    """A variant of IMITATE, judged with 1 % of the labels as its Tables VIII to XIII are."""
    return Model(
        f"imitate-{name}", "imitate", flags, fractions=(0.01,), not_on_phantom=not_on_phantom
    )


VLH = ablation("vlh", "--loss.terms", "vlh")
TERMS = {
    "VVH": ablation("vvh", "--loss.terms", "vvh"),
    "VVH+VLH": ablation("vvh-vlh", "--loss.terms", "vvh", "vlh"),
    "VLM": ablation("vlm", "--loss.terms", "vlm", "--loss.vlm-targets", "both"),
    "VVH+VLH+VVM": ablation("no-vlm", "--loss.terms", "vvh", "vlh", "vvm"),
    "VVH+VLH+VLM": ablation("no-vvm", "--loss.terms", "vvh", "vlh", "vlm"),
}
"""Rows of Table VIII."""
REVERSED = ablation("reversed", "--loss.report-mode", "reversed")
REPORTS = {
    "Imp": ablation("imp", "--loss.report-mode", "imp"),
    "Find&Imp": ablation("find-imp", "--loss.report-mode", "find_imp"),
    "reversed": REVERSED,
}
"""Rows of Table IX."""
KERNELS = {
    "w/o CICL": ablation("no-cicl", "--loss.kernel", "none"),
    "Gaussian": ablation("gaussian", "--loss.kernel", "gau"),
    "Laplacian": ablation("laplacian", "--loss.kernel", "lap"),
    "Sigmoid": ablation("sigmoid", "--loss.kernel", "sigmoid"),
}
"""Rows of Table X."""
PHANTOM_LAYERS = IMITATE_PRESETS["phantom"].model.text.layers
UNFROZEN = {
    f"Unfreeze_{n}": ablation(
        f"unfreeze-{n}",
        *("--model.text.unfreeze-last", str(n)),
        not_on_phantom=f"the phantom's text encoder has {PHANTOM_LAYERS} layers"
        if n > PHANTOM_LAYERS
        else "",
    )
    for n in range(1, 7)
}
"""Rows of Table XI."""
NO_HUB = "the phantom's text encoder has no published weights"
ENCODERS = {
    "ClinicalBERT": ablation(
        "clinicalbert",
        *("--model.text.encoder", "weights/ClinicalBERT"),  # Huang et al. have no hub repository
        not_on_phantom=NO_HUB,
    ),
    "RadBERT": ablation(
        "radbert", "--model.text.encoder", "StanfordAIMI/RadBERT", not_on_phantom=NO_HUB
    ),
}
"""Rows of Table XII."""
DROPS = {
    f"drop {rate}": ablation(
        f"drop-{rate}".replace(".", ""), "--model.aggregation.drop", *[str(rate)] * 4
    )
    for rate in (0.25, 0.5, 0.75)
}
"""Rows of Table XIII."""
SMOOTHINGS = {
    rate: ablation(f"lambda-{rate}".replace(".", ""), "--loss.smoothing", str(rate))
    for rate in (0.1, *(round(0.1 * k, 1) for k in range(3, 11)))
}
"""Points of Fig. 4 beside the default's 0.2."""

CHEXZERO = Model("chexzero", "lrclr", ("--loss.weight", "0"))
LRCLR = Model("lrclr", "lrclr")
LRCLR_ALL_PAIRS = Model("lrclr-all-pairs", "lrclr", ("--loss.pairs", "all"))
LRCLR_LITERAL = Model(
    "lrclr-literal",
    "lrclr",
    ("--loss.no-normalize", "--loss.scale", "one", "--loss.reduction", "sum"),
)
RANDOM_CHEXZERO = Model("random-chexzero", "lrclr", ("--model.weights", "none"), pretrained=False)

MODELS = {
    m.id: m
    for m in (
        *(GLORIA, GLORIA_MIMIC, GLOBAL_ONLY, LOCAL_ONLY, CONVIRT, SHUFFLED, RANDOM, IMAGENET),
        *(ITA_VIT, ITA_CTA_VIT, ITA_CPA_VIT, ITA_RESNET, ITA_CTA_RESNET, ITA_CPA_RESNET),
        *(MGCA_VIT, MGCA_RESNET, CONVIRT_MGCA, RANDOM_VIT, RANDOM_RESNET, IMAGENET_RESNET),
        *(BLIP, CONVIRT_OWN, CONVIRT_IMPRESSION, MACO, MACO_MAE, MACO_CLIP, RANDOM_MACO),
        *(MACO_RELEASED_WEIGHTING, MACO_PLAIN_TEXTS, MACO_UNMIRRORED, MACO_MORE_STUDIES),
        *(IMITATE, RANDOM_IMITATE, IMAGENET_IMITATE, VLH, *TERMS.values(), *REPORTS.values()),
        *(*KERNELS.values(), *UNFROZEN.values(), *ENCODERS.values(), *DROPS.values()),
        *(*SMOOTHINGS.values(), CHEXZERO, LRCLR, LRCLR_ALL_PAIRS, LRCLR_LITERAL),
        RANDOM_CHEXZERO,
    )
}

PRESETS: dict[str, Mapping[str, Any]] = {
    "blip": BLIP_PRESETS,
    "convirt": CONVIRT_PRESETS,
    "gloria": GLORIA_PRESETS,
    "imitate": IMITATE_PRESETS,
    "lrclr": LRCLR_PRESETS,
    "maco": MACO_PRESETS,
    "mgca": MGCA_PRESETS,
}
"""Every paper's presets."""

PRESET = {"phantom": "phantom", "real": "paper"}
"""Preset of every paper's package that a corpus is run with."""


def preset_of(model: Model, corpus: str) -> str:
    """Name of the preset that `model` is made with on `corpus`."""
    return "-".join(filter(None, (PRESET[corpus], model.variant)))


def settings(model: Model, corpus: str, seed: int) -> Any:
    """The paper's configuration of `model` on `corpus`."""
    words = [preset_of(model, corpus), *model.flags, "--seed", str(seed)]
    return config.parse(PRESETS[model.paper], words)
