"""IMITATE hyperparameters. Defaults are the paper's; `code=` names parts of the authors' code.

`ledger=` ids refer to the table in this folder's README.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from common.config import RunConfig, cite, released

MODEL_CODE = "model class"
LOSS_CODE = "clip_loss"
LOOP_CODE = "training loop"
DATA_CODE = "data set"

Term = Literal["vvh", "vlh", "vvm", "vlm"]
TERMS: tuple[Term, ...] = ("vvh", "vlh", "vvm", "vlm")
"""Vision-vision and vision-language at the high level and at the multi-level feature."""


@dataclass(frozen=True)
class ImageConfig:
    backbone: str = cite("resnet50.tv_in1k", paper="Sec. IV-A", code=MODEL_CODE, ledger="A1")
    """timm name of a ResNet, with its weights."""
    weights: Literal["imagenet", "none"] = cite("imagenet", paper="Sec. IV-A", ledger="A1")
    """Initial weights of the backbone."""
    stem_width: int | None = cite(None, note="the backbone's own")
    """Width of the stem, to shrink it."""
    channels: tuple[int, ...] | None = cite(None, note="the backbone's own")
    """Widths of the stages, to shrink it."""
    zero_init_last: bool = cite(False, code="torchvision's ResNet")
    """Whether random residual blocks start as identities; without effect on loaded weights."""
    size: int = cite(256, paper="Sec. IV-A", code=DATA_CODE)
    """Side of the images before the crop, pixels."""
    crop: int = cite(224, paper="Sec. IV-A", code=DATA_CODE)
    """Random crop in training, centre crop otherwise, pixels."""
    resize_mode: Literal["stretch", "pad"] = cite("stretch", code="extraction script", ledger="C6")
    """Stretch what is not black over the square, or keep the padded square."""
    pixel_norm: Literal["unit", "imagenet", "half"] = cite(
        "unit", paper="Sec. IV-A", code=DATA_CODE, released="imagenet", ledger="C1"
    )
    """[0, 1], ImageNet's mean and deviation, or [-1, 1]."""


@dataclass(frozen=True)
class TextConfig:
    encoder: str | None = cite(
        "emilyalsentzer/Bio_ClinicalBERT", paper="Sec. IV-A", code=MODEL_CODE, ledger="A11"
    )
    """Hub id or local folder of the text encoder; none: random, own word pieces."""
    layers: int = cite(12, paper="Sec. IV-A: BioClinicalBERT")
    """Transformer layers."""
    width: int = cite(768, paper="Sec. IV-A: BioClinicalBERT")
    """Width of the transformer."""
    heads: int = cite(12, paper="Sec. IV-A: BioClinicalBERT")
    """Attention heads."""
    max_tokens: int = cite(256, code=MODEL_CODE, ledger="A12")
    """Longest section, word pieces with [CLS] and [SEP]."""
    pool: Literal["cls", "mean"] = cite("cls", code=MODEL_CODE, ledger="A12")
    """Code of a section: the last hidden state at [CLS], or the mean over its word pieces."""
    unfreeze_last: int = cite(0, paper="Sec. III-A: frozen", code=MODEL_CODE, ledger="A14")
    """Last layers that are trained (Table XI), without dropout; 0 computes the codes once."""


@dataclass(frozen=True)
class AggregationConfig:
    drop: tuple[float, float, float, float] = cite(
        (0.85, 0.9, 0.9, 0.9),
        paper="Sec. III-C",
        code=MODEL_CODE,
        released=(0.75, 0.85, 0.9, 0.9),
        ledger="A2",
    )
    """Share of each stage's channels that is left out."""
    draw_with_replacement: bool = cite(
        False, paper="Sec. III-C: drop", code=MODEL_CODE, released=True, ledger="A3"
    )
    """Draw kept channels with replacement, some twice."""
    draw_scope: Literal["call", "sample"] = cite("call", code=MODEL_CODE, ledger="A4")
    """One draw for the batch, or one an image."""
    pad_tokens_to: int | None = cite(
        None, paper="Sec. III-C", code=MODEL_CODE, released=512, ledger="A6"
    )
    """Fill up with zero tokens, which carry their positions."""
    grid: int = cite(16, paper="Sec. III-C", code=MODEL_CODE)
    """Side to which every stage is pooled; its square is a token's width."""
    heads: int = cite(4, code=MODEL_CODE, ledger="A8")
    """Attention heads."""


@dataclass(frozen=True)
class ModelConfig:
    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    hidden: tuple[int, int, int] = cite((256, 2048, 1024), code=MODEL_CODE, ledger="A10")
    """Hidden widths of the projectors of multi-level, global and text features."""
    embedding_dim: int = cite(512, code=MODEL_CODE, ledger="A10")
    """Width of the joint space."""


@dataclass(frozen=True)
class LossConfig:
    terms: tuple[Term, ...] = cite(TERMS, paper="Table VIII")
    """Terms of the loss."""
    report_mode: Literal["hierarchical", "reversed", "imp", "find_imp"] = cite(
        "hierarchical", paper="Table IX"
    )
    """Which section each level is aligned with: findings with the multi-level feature and the
    impression with the global one, the other way round, the impression or both joined with both."""
    vlm_targets: Literal["findings", "both"] = cite("findings", paper="Table VIII and its text")
    """What the multi-level feature is aligned with: its section, or both (row VLM of the table)."""
    kernel: Literal["exp", "gau", "lap", "sigmoid", "none"] = cite(
        "exp", paper="Eq. 4, Table X", code=LOSS_CODE, ledger="B5 B19"
    )
    """From correlation to soft target; `none` is the plain contrast of Eq. 1."""
    smoothing: float = cite(0.2, paper="Sec. III-D: lambda", code=LOSS_CODE)
    """lambda of the exponential kernel."""
    negative_corr: Literal["keep", "clip"] = cite(
        "keep", paper="Eq. 4", code=LOSS_CODE, released="clip", ledger="B2"
    )
    """Negative correlations give negative targets, or none."""
    prior_scale: Literal["one", "tau"] = cite(
        "one", paper="Eq. 4", code=LOSS_CODE, released="tau", ledger="B3"
    )
    """Factor of the soft part of the targets."""
    kernel_on_diagonal: bool = cite(
        False, paper="Eq. 4", code=LOSS_CODE, released=True, ledger="B4"
    )
    """Add the kernel of 0 to the diagonal's 1."""
    similarity: Literal["cosine", "dot"] = cite(
        "cosine", paper="Eq. 2 prints an inner product", code=LOSS_CODE, ledger="B6"
    )
    """Of projected features."""
    tau_vl: float = cite(0.07, paper="Eq. 1", code=LOOP_CODE, ledger="B7")
    """Temperature of vision-language terms."""
    tau_vv: float = cite(0.07, paper="Eq. 1", code=LOOP_CODE, released=0.2, ledger="B7")
    """Temperature of vision-vision terms."""
    symmetric: bool = cite(True, paper="CICL is printed over rows", code=LOSS_CODE, ledger="B9")
    """Add the columns' cross entropy."""
    vv_weight: float = cite(
        1.0,
        paper="Sec. III-E",
        code=f"{LOOP_CODE}: both argument orders",
        released=2.0,
        ledger="B10",
    )
    """Weight of vision-vision terms."""
    vvm_prior: Literal["findings", "none"] = cite(
        "findings", paper="Sec. III-E", code=LOOP_CODE, released="none", ledger="B11"
    )
    """Codes that soften the multi-level vision-vision term."""
    multi_weight_schedule: bool = cite(
        False, paper="Sec. III-E", code=LOOP_CODE, released=True, ledger="B13"
    )
    """Lower the multi-level terms after epoch 30, with a jump."""
    gather: bool = cite(False, paper="Sec. IV-A: 128 a device", code=LOOP_CODE, ledger="B20")
    """Contrast across all processes, or within each."""


@dataclass(frozen=True)
class DataConfig:
    dataset: Literal["mimic", "chexpert"] = cite("mimic", paper="Sec. IV-A")
    """Corpus of image-report pairs."""
    min_words: int = cite(
        3, paper="Sec. IV-A", code=f"{DATA_CODE}: no minimum", released=1, ledger="C11"
    )
    """Reports with fewer words are left out."""
    rotation: tuple[float, float] = cite(
        (0.0, 180.0), paper="Sec. IV-A", code=DATA_CODE, released=(-30.0, 30.0), ledger="C2"
    )
    """Range of turns, degrees."""
    flip: float = cite(0.5, paper="Sec. IV-A, without a share", code=DATA_CODE, ledger="C3")
    """Share of views mirrored."""
    perspective: float = cite(0.0, paper="Sec. IV-A", code=DATA_CODE, released=0.5, ledger="C3")
    """Share of views warped, corners moved by up to a quarter of the side."""
    vertical_flip: float = cite(0.0, paper="Sec. IV-A", code=DATA_CODE, released=0.5, ledger="C3")
    """Share of views turned upside down."""
    autocontrast: float = cite(0.5, paper="Sec. IV-A, without a share", code=DATA_CODE, ledger="C3")
    """Share of views stretched to the full range of grey."""
    shuffle_pairs: bool = cite(False, note="control: no learning possible")
    """Shuffle the reports over the images."""


@dataclass(frozen=True)
class OptimConfig:
    lr: float = cite(4e-5, paper="Sec. IV-A", code=LOOP_CODE, released=2e-4, ledger="D1")
    """Highest learning rate of AdamW."""
    betas: tuple[float, float] = cite((0.9, 0.999), code=LOOP_CODE)
    """AdamW's decay rates."""
    weight_decay: float = cite(0.05, paper="Sec. IV-A", code=LOOP_CODE, ledger="D5")
    """Decoupled weight decay, of every parameter."""
    batch_size_per_process: int = cite(
        128, paper="Sec. IV-A: 16 x 128", code=LOOP_CODE, ledger="D3"
    )
    """Of each process: negatives are its own."""
    epochs: int = cite(50, paper="Sec. IV-A", code=LOOP_CODE, released=21, ledger="D2")
    """Most epochs."""
    patience: int | None = cite(
        5,
        note="early stopping, criterion unstated; MGCA's",
        code=LOOP_CODE,
        released=None,
        ledger="D2",
    )
    """Epochs without a lower validation loss before training stops."""
    schedule: Literal["warmup_cosine", "restarts"] = cite(
        "warmup_cosine", paper="Sec. IV-A", code=LOOP_CODE, released="restarts", ledger="D4"
    )
    """Linear warm-up and a cosine, or a cosine over `restart_steps` without warm-up."""
    warmup: float = cite(
        0.4, note="length unstated; MGCA's 40 %", code=LOOP_CODE, released=0.0, ledger="D4"
    )
    """Share of the steps with a growing rate."""
    restart_steps: int = cite(33_341, code=LOOP_CODE, ledger="D4")
    """Steps of the first cosine; the later ones are twice as long each."""
    lr_floor: float = cite(1e-8, code=LOOP_CODE)
    """Lowest learning rate."""


@dataclass(frozen=True)
class PretrainConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RunConfig(seed=42, precision="bf16")
    )
    """Seed 42 as released; half precision on an accelerator, losses in float32."""


PAPER = PretrainConfig()
RELEASED = replace(released(PAPER), run=replace(PAPER.run, precision="fp16"))
"""Half precision as in its loop (ledger D9)."""
PHANTOM = replace(
    PAPER,
    model=replace(
        PAPER.model,
        image=ImageConfig(
            backbone="resnet10t",
            weights="none",
            stem_width=8,
            channels=(16, 32, 64, 128),
            zero_init_last=True,
            size=104,
            crop=96,
        ),
        # a random BERT says little at [CLS], the mean of its states is a bag of words
        text=TextConfig(encoder=None, layers=2, width=128, heads=4, pool="mean"),
        aggregation=AggregationConfig(drop=(0.25, 0.5, 0.75, 0.75), grid=8),
        hidden=(128, 256, 256),
        embedding_dim=128,
    ),
    # codes of a random text encoder correlate by nearly 1: at the printed scale the soft part of a
    # row outweighs its pair tenfold, and few steps learn little. At the printed weight
    # the vision-vision terms cost four points on CheXpert's training images: 24 images are perhaps
    # told apart by anatomy alone
    loss=replace(PAPER.loss, prior_scale="tau", vv_weight=0.2),
    # turned by any angle, left is not left any more: few steps cannot afford that
    data=replace(PAPER.data, rotation=(-5.0, 5.0), flip=0.0),
    optim=replace(
        PAPER.optim, lr=3e-3, batch_size_per_process=24, epochs=4, warmup=0.1, patience=None
    ),
)
PRESETS = {"paper": PAPER, "released": RELEASED, "phantom": PHANTOM}

DECISIONS = {
    "A5": "Channel draws follow from seed, epoch and the batch's first row, so processes differ.",
    "A7": "[CLS] stands first; attention does not know the place, only row 0 of the positions.",
    "A9": "[CLS] and positions start at zero, as in the code.",
    "A13": "The frozen encoder takes no gradient and stays out of the optimiser; it stays in "
    "evaluation mode, trained layers included, or dropout would change the targets.",
    "A15": "One random stage instead of channels is not offered; too many tokens are an error.",
    "A16": "In validation the draws follow from the seed and the batch's first row.",
    "A17": "Each view is encoded once; both draws of channels read its stored maps.",
    "B1": "The sum of Eq. 3 runs over the code's features.",
    "B8": "Mean over the rows: a constant factor.",
    "B12": "The impression's codes soften the high-level vision-vision term.",
    "B14": "Reports without a section leave the terms that need it, as rows and as columns; a term "
    "with fewer than two left is 0. The empty section still passes the text projector, whose batch "
    "statistics it shares in.",
    "B15": "Missing text is never made up.",
    "B16": "Rows of the targets are not normalised.",
    "B17": "Correlation and losses are computed in float32 outside autocast.",
    "B18": "A code without variance correlates with nothing; one pair alone has target 1.",
    "B21": "One target matrix a term and text, one loss a pair of views.",
    "C4": "255 levels, clipped and rounded.",
    "C5": "A constant image passes through.",
    "C7": "`common.data prepare` writes each image once.",
    "C8": "Ids are those of the data set's loader.",
    "C9": "A section without a letter is missing.",
    "C10": "Training part only.",
    "C12": "Images, reports and codes are joined by id.",
    "C13": "Reports without both sections are counted and left out.",
    "D6": "Another order each epoch.",
    "D7": "Every run resumes, see `common.training`.",
    "D8": "Process 0 writes; means are means.",
    "D9": "Backward and step outside autocast.",
    "D10": "Batch statistics of each process.",
    "D11": "None.",
    "E1": "Tables III and V: MGCA's 60/20/20 draw; VI: the same draw, `--split rsna/lovt-lists` "
    "reads LoVT's lists, which share 1,022 test images with it.",
    "E4": "6,400 / 1,600 / 1,000: `object_cxr/mgca-v1`.",
    "E5": "80/20 of a training list with three classes, as MGCA's code draws it: "
    "`covidx/mgca-released`; Table II counts the binary list CXR-3B, which has two.",
    "E10": "The test part of `siim/gloria-v1`; MedKLIP's list was never published.",
    "F1": "Not inherited.",
    "F2": "Nothing is stored on modules.",
}
"""Ledger points without an option, and what was decided."""
