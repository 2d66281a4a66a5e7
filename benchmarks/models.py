"""The models that tables compare; light to import, so that planning is quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.blip import PRESETS as BLIP_PRESETS
from benchmarks.core import Model
from common import config
from convirt.config import PRESETS as CONVIRT_PRESETS
from gloria.config import PRESETS as GLORIA_PRESETS
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
    # ConVIRT Sec. 2.3: lambda 0.75 image-to-text, temperature 0.1; encoders and heads are GLoRIA's
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
RANDOM_MACO = Model("random-maco", "maco", ("--model.image.weights", "None"), pretrained=False)
BLIP = Model("blip", "blip", pretrained=False, judged_by="mgca")
CONVIRT_OWN = Model("convirt", "convirt", judged_by="mgca")

MODELS = {
    m.id: m
    for m in (
        *(GLORIA, GLORIA_MIMIC, GLOBAL_ONLY, LOCAL_ONLY, CONVIRT, SHUFFLED, RANDOM, IMAGENET),
        *(ITA_VIT, ITA_CTA_VIT, ITA_CPA_VIT, ITA_RESNET, ITA_CTA_RESNET, ITA_CPA_RESNET),
        *(MGCA_VIT, MGCA_RESNET, CONVIRT_MGCA, RANDOM_VIT, RANDOM_RESNET, IMAGENET_RESNET),
        *(BLIP, CONVIRT_OWN, MACO, MACO_MAE, MACO_CLIP, RANDOM_MACO),
    )
}

PRESETS: dict[str, Mapping[str, Any]] = {
    "blip": BLIP_PRESETS,
    "convirt": CONVIRT_PRESETS,
    "gloria": GLORIA_PRESETS,
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
