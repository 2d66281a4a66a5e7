"""MaCo hyperparameters. Defaults are the paper's (arXiv 2309.05904, first version).

`code=` names parts of the authors' code, which goes with the later journal version; `ledger=` ids
refer to the table in this folder's README.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from common.config import RunConfig, cite, released

MODEL_CODE = "model factory"
LOSS_CODE = "contrastive loss"
DATA_CODE = "pre-training data set"
COMMAND = "pre-training command"


@dataclass(frozen=True)
class ImageConfig:
    weights: str | None = cite(
        "timm/vit_base_patch16_224.mae", code=f"{COMMAND}: MAE ViT-B", ledger="O5"
    )
    """timm name, behind `timm/`, of the encoder's initial weights; none: random."""
    size: int = cite(448, code=f"{COMMAND}: --SR 1", ledger="A4")
    """Side of the prepared images and of the reconstruction target, pixels; 224: no
    super-resolution."""
    input: int = cite(224, code=MODEL_CODE)
    """Side of the encoder's input, pixels, reduced from `size`."""
    resize_antialias: bool = cite(False, code="torchvision 0.13 on tensors", ledger="A5")
    """Smooth before that reduction."""
    patch: int = cite(16, paper="Sec. 3.5: ViT-B/16", code=MODEL_CODE)
    """Side of a patch, pixels of the input."""
    width: int = cite(768, paper="Sec. 3.5: ViT-B/16", code=MODEL_CODE)
    """Width of the encoder."""
    depth: int = cite(12, paper="Sec. 3.5: ViT-B/16", code=MODEL_CODE)
    """Blocks of the encoder."""
    heads: int = cite(12, paper="Sec. 3.5: ViT-B/16", code=MODEL_CODE)
    """Attention heads of the encoder."""
    mask_ratio: float = cite(0.5, code=COMMAND, ledger="A7")
    """Share of the patches that the encoder does not see."""
    positions: Literal["mae", "stretched"] = cite(
        "mae", note="as in MAE", code=MODEL_CODE, released="stretched", ledger="A3"
    )
    """Frequencies of the fixed tables: MAE's, or the released slip's, slowest 0.1."""
    pool: Literal["mean", "cls"] = cite("mean", code=MODEL_CODE, ledger="A8")
    """The image vector: mean of the visible patches, or the class token."""


@dataclass(frozen=True)
class DecoderConfig:
    width: int = cite(768, code=MODEL_CODE, ledger="A6")
    """Width of the decoder."""
    depth: int = cite(4, code=MODEL_CODE, ledger="A6")
    """Blocks of the decoder."""
    heads: int = cite(6, code=MODEL_CODE, ledger="A6")
    """Attention heads of the decoder."""


@dataclass(frozen=True)
class TextConfig:
    vocabulary: str | None = cite(
        "google-bert/bert-base-uncased", paper="Sec. 3.3: BERT", note="texts are lower case"
    )
    """Hub id, local folder or file of the word pieces; none: the phantom's. The authors'
    30,000 pieces are the file `mimic_wordpiece.json`."""
    layers: int = cite(12, paper="Sec. 3.3: BERT", code=MODEL_CODE, released=6, ledger="A2")
    """Transformer layers."""
    width: int = cite(
        768, paper="Sec. 3.5", code=f"{MODEL_CODE}: 384, which cannot run", ledger="A1"
    )
    """Width of the transformer; equal to the image encoder's without `projection`."""
    heads: int = cite(12, paper="Sec. 3.3: BERT", code=MODEL_CODE, released=6, ledger="A2")
    """Attention heads."""
    feedforward: int = cite(
        3072, paper="Sec. 3.3: BERT", code=MODEL_CODE, released=1536, ledger="A2"
    )
    """Width of the feed-forward layers."""
    init: Literal["bert", "xavier"] = cite(
        "bert", note="start not stated", code=MODEL_CODE, released="xavier", ledger="A15"
    )
    """Random start: BERT's normal distribution, or Xavier's over every linear layer."""
    dropout: float = cite(0.1, code=MODEL_CODE)
    """Of hidden states and attention."""
    pool: Literal["pooler", "cls", "mean"] = cite("pooler", code=MODEL_CODE, ledger="A9")
    """The text vector: tanh of a linear map of [CLS], [CLS] itself, or the tokens' mean."""
    projection: bool = cite(False, code=MODEL_CODE, ledger="A10")
    """A linear map behind the text vector."""
    max_tokens: int = cite(100, code=DATA_CODE, ledger="D4")
    """Longest text, word pieces with [CLS]; there is no [SEP]."""


@dataclass(frozen=True)
class ModelConfig:
    image: ImageConfig = field(default_factory=ImageConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    position_start: Literal["zero", "centre"] = cite(
        "zero", note="Fig. 4 starts dispersed", code=LOSS_CODE, ledger="A14"
    )
    """Start of the importance layer's weights; `centre` is present in the code, times zero."""
    temperature: Literal["log", "linear"] = cite(
        "log", paper="Sec. 3.3: as CLIP's", code=LOSS_CODE, released="linear", ledger="L7"
    )
    """Learn log(1 / tau3), clamped at 100, or 1 / tau3 itself."""
    tau3: float = cite(0.03, paper="Sec. 3.5", code=LOSS_CODE, ledger="L7")
    """Temperature of the contrast at the start."""


@dataclass(frozen=True)
class LossConfig:
    weighting: Literal["paper", "released", "none"] = cite(
        "paper", paper="Eq. 2-3", code=LOSS_CODE, released="released", ledger="L1 L1b L2 L3"
    )
    """`paper`: one term, a high importance flattens its row; `released`: the mean of four cross
    entropies, a high one sharpens, without tau1, tau2, groups, direction or reduction; `none`:
    plain CLIP, Table 5's second row."""
    scale_texts: bool = cite(True, code=LOSS_CODE, ledger="L3b")
    """With `released`, importance scales rows of texts, too, which thereby know the masks of their
    images; off: a control."""
    tau1: float = cite(1.0, paper="Sec. 3.5")
    """Temperature of the importance that scales logits."""
    tau2: float = cite(16.0, paper="Sec. 3.5")
    """Temperature of the importance that weighs losses."""
    group_size: int = cite(16, paper="Sec. 3.5: D", ledger="L5")
    """Consecutive samples over which importance is normalised."""
    align_direction: Literal["i2t", "symmetric"] = cite(
        "i2t", paper="Eq. 3", code=LOSS_CODE, released="symmetric", ledger="L4"
    )
    """Choose a text for each image, or the mean of both directions."""
    align_reduction: Literal["group_mean", "batch_mean"] = cite(
        "group_mean", note="Eq. 3 prints none; equals the mean at equal weights", ledger="L10"
    )
    """Sum inside each group and mean over groups, or mean over the batch; an incomplete last group
    counts as much as the others."""
    mae_weight: float = cite(
        0.9, paper="Eq. 4: lambda", code=f"{COMMAND}: unused", released=1.0, ledger="L6"
    )
    """Weight of the reconstruction."""
    align_weight: float = cite(
        0.1, paper="Eq. 4: 1 - lambda", code=f"{COMMAND}: unused", released=1.0, ledger="L6"
    )
    """Weight of the contrast."""
    norm_pix: bool = cite(False, paper="Eq. 1", code=COMMAND, ledger="L8")
    """Standardise each target patch."""


@dataclass(frozen=True)
class DataConfig:
    dataset: Literal["mimic", "chexpert"] = cite("mimic", paper="Sec. 3.4")
    """Corpus of image-report pairs."""
    views: Literal["all", "frontal"] = cite("all", paper="Sec. 3.4: 377,110 images", ledger="D8")
    """Images of a study that are paired with its report."""
    report_sections: Literal["findings_impression", "impression", "findings"] = cite(
        "findings_impression", note="the code's table was not released", ledger="D1"
    )
    """Sections joined to the text; else the report's last paragraph, else it counts as empty."""
    sentence_split: Literal["sentences", "safe", "released"] = cite(
        "sentences", note="whole sentences", code=DATA_CODE, released="released", ledger="D2 D3"
    )
    """Split at a full stop before white space or a blank line and drop pieces without a letter, or
    at every full stop and count them; `safe` keeps list numbers and lets sections run together."""
    flip: float = cite(0.5, code=DATA_CODE, ledger="D6")
    """Share of images mirrored, against the sides that reports name."""
    rotate: float = cite(20.0, code=DATA_CODE, ledger="D6")
    """Largest turn, degrees."""
    scale: tuple[float, float] = cite((0.8, 1.2), code=DATA_CODE, ledger="D6")
    """Factor of size."""
    shuffle_pairs: bool = cite(False, note="control: no learning possible")
    """Shuffle the reports over the images."""


@dataclass(frozen=True)
class OptimConfig:
    lr: float = cite(4.5e-4, paper="Sec. 3.5", code=COMMAND, released=2.5e-4, ledger="O1")
    """Highest learning rate of AdamW."""
    betas: tuple[float, float] = cite((0.9, 0.95), paper="Sec. 3.5", code=COMMAND)
    """AdamW's decay rates."""
    weight_decay: float = cite(0.05, paper="Sec. 3.5", code=COMMAND)
    """Decoupled weight decay."""
    decay: Literal["strict", "released"] = cite(
        "strict", note="as in MAE", code="parameter groups", released="released", ledger="O6"
    )
    """Leave vectors, tokens and the temperature undecayed, or vectors and biases alone; the
    importance weights decay."""
    batch_size: int = cite(
        512, paper="Sec. 3.5", code=f"{COMMAND}: 4 x 512", released=2048, ledger="O2"
    )
    """Global, over all processes."""
    epochs: int = cite(30, paper="Table 1", code=COMMAND, released=51, ledger="O3")
    """Epochs."""
    warmup_epochs: float = cite(2.0, code=COMMAND, ledger="O4")
    """Epochs in which the rate grows from 0."""


@dataclass(frozen=True)
class PretrainConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RunConfig(precision="bf16")
    )
    """Half precision on an accelerator; the code adds 2 accumulated batches (`accumulate`)."""


PAPER = PretrainConfig()
RELEASED = released(PAPER)
PHANTOM = replace(
    PAPER,
    model=ModelConfig(
        # fine patches and few blocks: tokens keep to what their patch shows (README)
        image=ImageConfig(weights=None, size=192, input=96, patch=8, width=96, depth=2, heads=3),
        decoder=DecoderConfig(width=64, depth=1, heads=2),
        # a random BERT's [CLS] hears next to nothing of the words for a thousand steps, and
        # dropout drowns that: the mean of the tokens learns in minutes
        text=TextConfig(
            vocabulary=None,
            layers=2,
            width=96,
            heads=4,
            feedforward=384,
            dropout=0.0,
            pool="mean",
        ),
    ),
    # few steps: no mirrored sides, no large turns; `safe` drew the texts of the committed results
    data=DataConfig(sentence_split="safe", flip=0.0, rotate=5.0, scale=(0.9, 1.1)),
    optim=OptimConfig(lr=2e-3, batch_size=48, epochs=36, warmup_epochs=1.0),
)
PRESETS = {"paper": PAPER, "released": RELEASED, "phantom": PHANTOM}

DECISIONS = {
    "V1": "The first version's tables and losses are the target; the released code goes with the "
    "journal version.",
    "A11": "The default model is ViT-B/16; the code's default name resolves to a ViT-L that fails.",
    "A12": "Absent: the masked-language head, two position layers, a second temperature; the "
    "loader names each.",
    "A13": "One minus the mask, instead of gathering a tensor of ones.",
    "L9": "Removed patches only, and only they are predicted.",
    "L11": "None: `w_l` is computed without gradient.",
    "D5": "No token is masked, as probability 0 leaves it.",
    "D8b": "MIMIC's validate and test parts are left out of training.",
    "D7": "Long side scaled with area interpolation, zero padding: `common.data prepare`.",
    "O9": "Tables evaluate the epoch with the lowest validation loss (`best/`); the code its last.",
    "O7": "Each process keeps its own device.",
    "O8": "The loader returns every key without a place, with the reason.",
    "C4": "`chexpert/gloria-v1` (frontal, without 5x200, by image) or, with `--split`, `-patient`; "
    "the paper's part has all views.",
    "C2b": "Crops are taken from the padded square and resized bilinearly; the test image is the "
    "whole square, reduced as in pre-training (A5), not a centre crop of the oblong one.",
    "C5": "Labels are matched by name.",
    "C6": "Pneumonia (lung opacity with its boxes) against everything else.",
    "C7": "The test part of `rsna/gloria-v1`.",
    "C8": "Shares are nested by a hash of seed and patient (`fraction_rule`), never the authors' "
    "draws.",
    "C9": "The rate of an update is set before it: the same factors from the first one.",
    "S2": "12,047 images in the real table.",
    "S3": "`siim/maco-v1`, distinct images; `siim/maco-lists` reads the authors' leaking lists.",
    "S4": "All four kinds, each under its name, the mean over images first.",
    "S6b": "No layer scale and no relative position bias, which the code's BEiT blocks learn from "
    "1 and 0; float32 on every device.",
    "S7": "1,000, 5,000 and 160,000 iterations at 8 images.",
    "G3b": "The image is the prepared 448 pixel square, reduced as in pre-training.",
    "G5": "Tables show means over phrases; results also hold means over the categories' means.",
    "G6": "Tables show the signed ratio; results also hold the mean of absolute values.",
    "G8": "A phrase whose boxes vanish at 224 pixels is left out and counted.",
    "G9": "A phrase keeps the order of its sentences: nothing is drawn.",
    "G10": "A flat map scores 0 in IoU, CNR and pointing game.",
    "G11": "1.027, the table's.",
    "G12": "Every annotation, grouped by phrase; the counts are in each result.",
    "Z1": "`maco.zero_shot`, a library function: the code's generic prompts and dot products, "
    "without SIIM's two further sentences; `zero_shot` of benchmarks has this repository's.",
    "B1": "Table 5's second row: `loss.weighting` none, `loss.align_direction` symmetric, lambda "
    "as published.",
    "T1": "Cells in doubt are marked in the published table.",
    "T2": "Not used.",
}
"""Ledger points without an option, and what was decided."""
