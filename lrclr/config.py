"""LRCLR hyperparameters. Defaults are the paper's where it speaks, else those of CheXzero's code.

`code=` names parts of CheXzero's code, `released=` its values: no code of LRCLR was ever released.
`ledger=` ids refer to the table in this folder's README.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from common.config import RunConfig, cite, released

MODEL_CODE = "model"
TRAIN_CODE = "training script"
DATA_CODE = "data set"


@dataclass(frozen=True)
class ImageConfig:
    size: int = cite(320, code="preprocessing", ledger="L32")
    """Side of the padded square on disk, pixels."""
    input: int = cite(224, paper="Sec. 3", code=DATA_CODE, ledger="L32")
    """Side of the network input, pixels."""
    fit: Literal["resize", "crop"] = cite("resize", code=DATA_CODE)
    """From `size` to `input`: resize, or cut, in training at a random place."""
    rotate: float = cite(0.0, note="the code does not augment")
    """Largest turn before a training cut, degrees; needs `crop`."""
    zoom: float = cite(0.0, note="the code does not augment")
    """Largest change of size before a training cut, as a share; needs `crop`."""
    antialias: bool = cite(False, code=f"{DATA_CODE}: default of its day", ledger="L13")
    """Smooth before the reduction to `input`."""
    patch: int = cite(32, code=f"{MODEL_CODE}: CLIP ViT-B/32")
    """Side of a patch, pixels."""
    width: int = cite(768, code=MODEL_CODE)
    """Width of the transformer."""
    layers: int = cite(12, code=MODEL_CODE)
    """Transformer layers."""
    heads: int = cite(12, code=MODEL_CODE)
    """Attention heads, and so regions of an image."""


@dataclass(frozen=True)
class TextConfig:
    context: int = cite(77, paper="Sec. 3", code=MODEL_CODE)
    """Longest text, byte pairs with start and end; the rest is cut."""
    pool: Literal["end", "mean"] = cite("end", code=MODEL_CODE)
    """Feature of a text: its end token, or the mean over its tokens."""
    width: int = cite(512, paper="Sec. 3", code=MODEL_CODE)
    """Width of the transformer."""
    layers: int = cite(12, paper="Sec. 3", code=MODEL_CODE)
    """Transformer layers."""
    heads: int = cite(8, paper="Sec. 3", code=MODEL_CODE)
    """Attention heads."""


@dataclass(frozen=True)
class RegionConfig:
    select_at: Literal["post", "before_last", "extra_layer"] = cite(
        "post", note='all L layers enter Eq. 4, and the module "adds"', ledger="L04"
    )
    """`post`: the encoder is untouched, regions are rows of its last layer; `before_last`: the last
    layer sees [CLS] and the regions alone, as in TransFG; `extra_layer`: one more layer does."""
    rollout: Literal["product", "residual", "last_layer"] = cite("product", paper="Eq. 4")
    """Attention from the input to the end: the layers' product, with half of the identity added to
    each, or the last layer alone."""
    layers: Literal["all", "before_last"] = cite("all", paper="Sec. 3: all L layers", ledger="L05")
    """Factors of the product; TransFG leaves out the last."""
    order: Literal["newest_left", "ascending"] = cite(
        "newest_left", note="TransFG's; silent in the paper", ledger="L06"
    )
    """Side from which a later layer multiplies."""


@dataclass(frozen=True)
class CrossConfig:
    width: int = cite(512, note="silent; as both encoders' joint space", ledger="L08")
    """Width of the cross-modality transformer."""
    depth: int = cite(1, paper="Sec. 3: layer, in the singular", ledger="L08")
    """Its blocks."""
    heads: int = cite(8, note="silent; as CLIP's text encoder", ledger="L08")
    """Its attention heads."""
    type_embed: bool = cite(True, note="silent; as the cited UNITER and ViLT", ledger="L08")
    """Add a learned vector to region tokens and another to text tokens."""


@dataclass(frozen=True)
class ModelConfig:
    weights: Literal["openai", "none"] = cite(
        "openai", paper="Sec. 4: CLIP; Sec. 3: ImageNet", code=MODEL_CODE, ledger="L01 L02"
    )
    """Start of both encoders: CLIP ViT-B/32, or random by CLIP's scheme."""
    checkpoint: str | None = cite(None, note="Table 1's row: CheXzero + LRCLR", ledger="L01")
    """A CheXzero checkpoint to start from instead."""
    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    embedding_dim: int = cite(512, code=MODEL_CODE)
    """Width of the joint space."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    cross: CrossConfig = field(default_factory=CrossConfig)


@dataclass(frozen=True)
class LossConfig:
    weight: float = cite(
        0.5, paper="Eq. 6: lambda, chosen on the zero-shot task", released=0.0, ledger="L18"
    )
    """lambda of the local loss; 0 is CheXzero."""
    normalize: bool = cite(True, note="Eq. 5 prints a dot product", ledger="L16")
    """Cosine instead of the dot product."""
    scale: Literal["own", "shared", "one"] = cite("own", note="Eq. 5 prints none", ledger="L17")
    """Factor of the local similarities: its own learned one, the global loss's, or none."""
    symmetric: bool = cite(False, paper="Eq. 5: image to text", ledger="L16")
    """Contrast texts against images too."""
    reduction: Literal["mean", "sum"] = cite("mean", note="Eq. 5 prints a sum", ledger="L16")
    """Over the batch; with the mean lambda does not depend on its size."""
    pairs: Literal["matched", "all"] = cite("matched", paper="Eq. 5: one index", ledger="L11")
    """Class tokens of matched passes, which leak, or a pass for every image and text."""
    clamp: bool = cite(True, note="CLIP's", code=TRAIN_CODE, released=False)
    """Keep both learned scales below 100."""
    gather: bool = cite(False, code=f"{TRAIN_CODE}: one process")
    """Contrast across all processes, or within each; passes of all pairs stay within each."""


@dataclass(frozen=True)
class DataConfig:
    dataset: Literal["mimic", "chexpert"] = cite("mimic", paper="Sec. 3: MIMIC-CXR")
    """Corpus of image-report pairs, every view."""
    sections: Literal["strict", "chexzero"] = cite(
        "strict",
        paper="Sec. 3, Datasets: impressions",
        code="report parser",
        released="chexzero",
        ledger="L12",
    )
    """The impression as every paper here reads it, studies without one left out; or by CheXzero's
    rule, which trains on `NO IMPRESSION` and on blanks."""
    section: Literal["impression", "findings", "both"] = cite(
        "impression",
        paper="Sec. 3, Datasets; its Encoding says findings",
        code="report parser",
        ledger="L12",
    )
    """Text of a pair; the rule of `chexzero` knows impressions alone."""
    sentence_dropout: float = cite(0.0, note="the code takes whole texts, in their order")
    """Share of a training text's sentences that an epoch leaves out; the others are shuffled."""
    shuffle_pairs: bool = cite(False, note="control: no learning possible")
    """Shuffle the reports over the images."""


@dataclass(frozen=True)
class OptimConfig:
    optimizer: Literal["sgd", "adamw"] = cite("sgd", code=TRAIN_CODE, ledger="L19")
    """Both are offered by CheXzero's code."""
    lr: float = cite(1e-4, code=TRAIN_CODE, ledger="L19")
    """Highest learning rate."""
    schedule: Literal["constant", "cosine"] = cite("constant", code=TRAIN_CODE, ledger="L19")
    """The same rate throughout, or half a cosine down to 0 after the warm-up."""
    warmup: float = cite(0.0, code=TRAIN_CODE, ledger="L19")
    """Share of the steps with a growing rate."""
    new_lr_mult: float = cite(1.0, note="the cross-modality transformer starts anew")
    """Factor of the rate for the parameters of LRCLR."""
    momentum: float = cite(0.9, code=TRAIN_CODE)
    """Of SGD."""
    weight_decay: float = cite(0.0, code=TRAIN_CODE)
    """Of every parameter."""
    batch_size: int = cite(
        64, code=f"{TRAIN_CODE}: names of checkpoints", released=16, ledger="L19"
    )
    """Over all processes."""
    epochs: int = cite(20, paper="Sec. 3, Datasets", code=TRAIN_CODE, released=4, ledger="L20")
    """Passes over the pairs."""


@dataclass(frozen=True)
class PretrainConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    freeze: Literal["none", "image", "text", "both"] = cite(
        "none", paper="Sec. 1: fine-tuning module", code=TRAIN_CODE, ledger="L14"
    )
    """Encoders that are not trained; with both and regions selected
    after the encoder (`post`), zero-shot results cannot change."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)


PAPER = PretrainConfig()
LITERAL = replace(
    PAPER,
    loss=replace(PAPER.loss, normalize=False, scale="one", reduction="sum"),
)
"""Eq. 5 as printed."""
RELEASED = released(PAPER)
"""CheXzero's code."""
PHANTOM = replace(
    PAPER,
    model=ModelConfig(
        weights="none",
        # few pairs: without room for cuts, turns and sizes they are learnt by heart
        image=ImageConfig(
            size=112,
            input=96,
            fit="crop",
            rotate=5.0,
            zoom=0.1,
            patch=16,
            width=96,
            layers=4,
            heads=4,
        ),
        # a random transformer's end token hears next to nothing of the words for a thousand steps
        text=TextConfig(pool="mean", width=96, layers=2, heads=4),
        embedding_dim=96,
        cross=CrossConfig(width=96, heads=4),
    ),
    # a prompt is one short phrase: told of whole texts alone, images are told apart while prompts
    # say little (README)
    data=DataConfig(sentence_dropout=0.3),
    # SGD at 1e-4 moves random weights nowhere in minutes
    optim=OptimConfig(
        optimizer="adamw",
        lr=5e-4,
        schedule="cosine",
        warmup=0.1,
        weight_decay=0.2,
        batch_size=24,
        epochs=24,
    ),
)
PRESETS = {"paper": PAPER, "literal": LITERAL, "released": RELEASED, "phantom": PHANTOM}

DECISIONS = {
    "L03": "V, which Eq. 3 prints, is dropped: Eq. 4 multiplies (N, N) matrices.",
    "L07": "Patches only; [CLS] is kept anyway.",
    "L09": "Start to end token; what lies behind is masked.",
    "L10": "The sentence means the global loss.",
    "L15": "F1 on the test part, labelled oracle; beside it Youden, MCC, 0.5 and validation's cut.",
    "L21": "The first frontal view of each study: `chexpert_test/view1-v1`.",
    "L22": "Whatever the table holds, counted; the paper's 377,100 is 377,110 in the release.",
    "L23": "Ours, by GLoRIA's recipe, with the same prompt pairs; its global similarity alone.",
    "L24": "Ours, by ConVIRT's own recipe, with the same prompt pairs.",
    "L25": "The root of a head's width.",
    "L26": "K is the number of heads.",
    "L27": "Inverted as published for the table, and a repaired pair beside it.",
    "L28": "Nothing to decide.",
    "L29": "Last block, from the end token to the regions, mean over heads.",
    "L30": "One pair an image, every view, of the release's train part; the code takes all images.",
    "L31": "Duplicates stay.",
}
"""Ledger points without an option, and what was decided."""
