"""ConVIRT hyperparameters, those of its own paper.

Other papers' readings of it are options of their packages: `gloria` with its global loss alone,
`mgca` with its instance alignment alone. No code was ever released: there is no such preset. The
paper itself was not at hand: its numbers are cited as commonly reported, to be checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from common.config import RunConfig, cite


@dataclass(frozen=True)
class ImageConfig:
    backbone: str = cite("resnet50.tv_in1k", paper="Sec. 2.3")
    """timm name of a ResNet, with its weights."""
    weights: Literal["imagenet", "none"] = cite("imagenet", paper="Sec. 2.3")
    """Initial weights of the backbone."""
    stem_width: int | None = cite(None, note="the backbone's own")
    """Width of the stem, to shrink it."""
    channels: tuple[int, ...] | None = cite(None, note="the backbone's own")
    """Widths of the stages, to shrink it."""
    zero_init_last: bool = cite(False, code="torchvision's ResNet")
    """Whether random residual blocks start as identities; without effect on loaded weights."""
    size: int = cite(256, note="room for crops")
    """Long side after the resize that precedes zero padding, pixels."""
    crop: int = cite(224, paper="Appendix A")
    """Side of the network input, pixels."""


@dataclass(frozen=True)
class TextConfig:
    encoder: str | None = cite("emilyalsentzer/Bio_ClinicalBERT", paper="Sec. 2.3: ClinicalBERT")
    """Hub id or local folder of the initial weights and word pieces; none: random, own word
    pieces."""
    layers: int = cite(12, paper="Sec. 2.3: BERT")
    """Transformer layers."""
    width: int = cite(768, paper="Sec. 2.3: BERT")
    """Width of the transformer."""
    heads: int = cite(12, paper="Sec. 2.3: BERT")
    """Attention heads."""
    pool: Literal["max", "mean", "cls"] = cite("max", paper="Sec. 2.3")
    """Over the last layer's tokens."""
    frozen_layers: int = cite(6, paper="Sec. 2.3")
    """First layers that are not trained, nor are the embeddings then; 0 trains everything."""
    dropout: float = cite(0.1, note="BERT's own")
    """Of hidden states and attention."""
    max_tokens: int = cite(128, note="longer than any sentence; whole sections are cut")
    """Longest text, word pieces with [CLS] and [SEP]."""


@dataclass(frozen=True)
class ModelConfig:
    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    embedding_dim: int = cite(512, paper="Sec. 2.3")
    """Width of the joint space; a head's hidden layer is as wide as its input, our reading."""


@dataclass(frozen=True)
class LossConfig:
    tau: float = cite(0.1, paper="Appendix A")
    """Temperature of the contrast."""
    image_to_text: float = cite(0.75, paper="Appendix A: lambda")
    """Weight of choosing a text for an image; the other direction has the rest."""
    gather: bool = cite(False, note="one device in the paper")
    """Contrast across all processes, or within each."""


@dataclass(frozen=True)
class DataConfig:
    dataset: Literal["mimic", "chexpert"] = cite("mimic", paper="Sec. 3.1")
    """Corpus of image-report pairs."""
    section: Literal["both", "impression", "findings"] = cite(
        "both", paper="Sec. 3.1", note="LRCLR's row uses impressions"
    )
    """Section of the report that sentences are drawn from."""
    text: Literal["sentence", "report"] = cite("sentence", paper="Sec. 2.3: t_u")
    """One sentence drawn anew each time, or the whole section."""
    min_words: int = cite(3, paper="Appendix A")
    """Sentences with fewer words are left out."""


@dataclass(frozen=True)
class AugmentConfig:
    crop_area: tuple[float, float] = cite((0.6, 1.0), paper="Appendix A")
    """Share of the image that a crop covers."""
    flip: float = cite(0.5, paper="Appendix A")
    """Share of images mirrored."""
    rotate: float = cite(20.0, paper="Appendix A")
    """Largest turn, degrees."""
    shift: float = cite(0.1, paper="Appendix A")
    """Largest shift, share of the crop's side."""
    scale: tuple[float, float] = cite((0.95, 1.05), paper="Appendix A")
    """Factor of size."""
    light: tuple[float, float] = cite((0.6, 1.4), paper="Appendix A")
    """Factor of brightness, and of contrast."""
    blur: tuple[float, float] = cite((0.1, 3.0), paper="Appendix A")
    """Deviation of the Gaussian blur, pixels of a 224 pixel image."""


@dataclass(frozen=True)
class OptimConfig:
    lr: float = cite(1e-4, paper="Appendix A")
    """Learning rate of Adam at the start."""
    weight_decay: float = cite(1e-6, paper="Appendix A")
    """L2 penalty inside Adam."""
    plateau: int = cite(5, paper="Appendix A")
    """Epochs without a lower validation loss after which the rate is halved."""
    batch_size: int = cite(32, paper="Appendix A")
    """Global, over all processes."""
    epochs: int = cite(200, paper="Appendix A")
    """Epochs."""


@dataclass(frozen=True)
class PretrainConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """Full precision."""


PAPER = PretrainConfig()
PHANTOM = replace(
    PAPER,
    model=ModelConfig(
        image=ImageConfig(
            backbone="resnet10t",
            weights="none",
            stem_width=8,
            channels=(16, 32, 64, 128),
            zero_init_last=True,
            size=104,
            crop=96,
        ),
        # random layers are no use frozen, and dropout drowns them
        text=TextConfig(encoder=None, layers=2, width=128, heads=4, frozen_layers=0, dropout=0.0),
        embedding_dim=128,
    ),
    # flipping would contradict the sides that sentences name, and few steps cannot afford that
    augment=AugmentConfig(flip=0.0, rotate=5.0, crop_area=(0.85, 1.0), light=(0.9, 1.1)),
    optim=OptimConfig(lr=1e-3, batch_size=48, epochs=12),
)
PRESETS = {"paper": PAPER, "phantom": PHANTOM}

DECISIONS = {
    "valid": "The paper holds out 5,000 pairs; here MIMIC's own validation part.",
    "sources": "No code was released: numbers are the paper's.",
}
"""Points without an option, and what was decided."""
