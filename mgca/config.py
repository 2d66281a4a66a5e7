"""MGCA hyperparameters. Defaults are the paper's; `code=` names parts of the authors' code.

`ledger=` ids refer to the table in this folder's README. Each preset exists for both image
encoders: the paper's default is ViT-B/16, tables 2 and 3 need ResNet-50.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import tyro

from common.config import RunConfig, cite, released

PRETRAIN = "pre-training command line"
HEADS = "projection heads"
TEXT_CODE = "text encoder"
LOSS_CODE = "pre-training module"
DATA_CODE = "pre-training data set"


@dataclass(frozen=True)
class ImageConfig:
    backbone: str = cite(
        "deit_base_patch16_224.fb_in1k",
        paper="Sec. 4.1: ViT-B/16",
        code="image encoder: DeiT-B",
        ledger="D21",
    )
    """timm name of a ViT or ResNet, with its weights (ResNet-50: `resnet50.tv_in1k`, D22)."""
    weights: Literal["imagenet", "none"] = cite("imagenet", code="image encoder", ledger="D22")
    """Initial weights of the backbone."""
    patch: int | None = cite(None, note="the backbone's own")
    """Side of a patch, pixels, to shrink a ViT."""
    width: int | None = cite(None, note="the backbone's own")
    """Width of a ViT, to shrink it."""
    depth: int | None = cite(None, note="the backbone's own")
    """Blocks of a ViT, to shrink it."""
    heads: int | None = cite(None, note="the backbone's own")
    """Attention heads of a ViT, to shrink it."""
    stem_width: int | None = cite(None, note="the backbone's own")
    """Width of a ResNet's stem, to shrink it."""
    channels: tuple[int, ...] | None = cite(None, note="the backbone's own")
    """Widths of a ResNet's stages, to shrink it."""
    zero_init_last: bool = cite(False, code="torchvision's ResNet")
    """Whether random residual blocks start as identities; without effect on loaded weights."""
    resnet_input: int = cite(299, code="image encoder", ledger="D23")
    """Side to which a ResNet upsamples its input, pixels; 19 x 19 regions at 299."""
    size: int = cite(256, code=f"{DATA_CODE}: imsize")
    """Long side after the resize that precedes zero padding, pixels."""
    crop: int = cite(224, code=f"{DATA_CODE}: crop_size")
    """Random crop in training, centre crop otherwise, pixels."""


@dataclass(frozen=True)
class TextConfig:
    encoder: str | None = cite("emilyalsentzer/Bio_ClinicalBERT", paper="Sec. 4.1")
    """Hub id or local folder of the initial weights and word pieces; none: random, own word
    pieces."""
    layers: int = cite(
        12, paper="Sec. 4.1: BioClinicalBERT", code=TEXT_CODE, released=6, ledger="D18"
    )
    """Transformer layers; the first ones of the encoder are kept."""
    width: int = cite(768, code=TEXT_CODE)
    """Width of the transformer."""
    heads: int = cite(12, code=TEXT_CODE)
    """Attention heads."""
    dropout: float = cite(0.1, code=TEXT_CODE)
    """Of hidden states and attention."""
    positions: Literal["true", "zero"] = cite(
        "true", note="bug", code=TEXT_CODE, released="zero", ledger="D19"
    )
    """`zero`: every piece has position 0 and no token type, so word order is not seen."""
    word_weight_shift: Literal[0, 1] = cite(0, note="bug", code=TEXT_CODE, released=1, ledger="D09")
    """Pieces by which a word's weight is taken too late."""
    drop_last_word_if_full: bool = cite(
        False, note="bug", code=TEXT_CODE, released=True, ledger="D20"
    )
    """A report that fills `max_tokens` loses its last word and [SEP]."""
    sentence_rule: Literal["released", "decimal_safe"] = cite(
        "released", code=DATA_CODE, note="the paper says nothing of sentences", ledger="D26"
    )
    """`released` drops one-word sentences and splits inside 2.5 cm; `decimal_safe` keeps both."""
    max_tokens: int = cite(112, code=f"{DATA_CODE}: max_words")
    """Longest text, word pieces with [CLS] and [SEP]."""
    pad: Literal["longest", "max"] = cite(
        "longest",
        note="with masked padding the same result, less work",
        released="max",
        ledger="D13",
    )
    """Pad to the longest text of the batch, or always to `max_tokens`."""
    pad_words: Literal["mask", "keep"] = cite(
        "mask", note="not discussed", code=LOSS_CODE, released="keep", ledger="D13"
    )
    """Whether padding is left out of the word contrast and of the heads' batch statistics."""


@dataclass(frozen=True)
class ModelConfig:
    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    embedding_dim: int = cite(128, paper="Sec. 4.1", code=f"{PRETRAIN}: emb_dim")
    """Width d of the joint space."""
    head_width: int = cite(2048, code=HEADS)
    """Hidden width of the four projection heads."""
    prototypes: int = cite(500, paper="Sec. 4.1", code=f"{PRETRAIN}: num_prototypes")
    """Number K of prototypes."""
    cta_attention: Literal["learned", "cosine"] = cite(
        "learned", paper="Eq. 4", code=LOSS_CODE, released="cosine", ledger="D03"
    )
    """Cross-attention with projections Q, K, V, O, one set a direction, or of plain cosines."""
    cta_attention_bias: bool = cite(
        False, paper="Eq. 4", code=LOSS_CODE, released=True, ledger="D03"
    )
    """Biases of those projections."""
    cta_attention_heads: int = cite(1, paper="Eq. 4", code=LOSS_CODE)
    """Heads of the learned cross-attention."""


@dataclass(frozen=True)
class LossConfig:
    tau_ita: float = cite(0.1, paper="Sec. 4.1", code=PRETRAIN, released=0.07, ledger="D01")
    """Temperature of the instance contrast."""
    tau_cta: float = cite(0.07, paper="Sec. 4.1", code=PRETRAIN, released=0.1, ledger="D02")
    """Temperature of the token contrast and of the cosine attention."""
    tau_cpa: float = cite(0.2, paper="Sec. 4.1", code=PRETRAIN)
    """Temperature of the prototype assignment."""
    scaling: Literal["paper", "released"] = cite(
        "paper", paper="Eq. 3, 6", code=LOSS_CODE, released="released", ledger="D05 D06"
    )
    """`paper` halves the sums over both directions of ITA and CTA."""
    token_weights: Literal["clipped", "normalised", "literal"] = cite(
        "clipped",
        note="taken literally, raw weights over S make CTA vanish",
        code=LOSS_CODE,
        ledger="D07",
    )
    """[CLS] attention clipped to its 10 % and 90 % quantiles and made to sum to 1; only the latter;
    or raw over the number of tokens."""
    normalise_attended_patches: bool = cite(
        True, paper="Eq. 5", code=LOSS_CODE, released=False, ledger="D04"
    )
    """Scale what a ViT's patches see of the words to length 1; for ResNets always done."""
    sinkhorn_iterations: int = cite(3, code=f"{PRETRAIN}: sinkhorn_iterations", ledger="D15")
    """Rounds of row and column normalisation."""
    sinkhorn_eps: float = cite(0.05, code=f"{PRETRAIN}: epsilon", ledger="D15")
    """Entropy weight of the codes."""
    ita_weight: float = cite(1.0, paper="Sec. 4.1", ledger="D17")
    """Weight of instance-wise alignment."""
    cta_weight: float = cite(1.0, paper="Sec. 4.1", ledger="D17")
    """Weight of token-wise alignment."""
    cpa_weight: float = cite(1.0, paper="Sec. 4.1", ledger="D17")
    """Weight of prototype alignment."""
    gather: bool = cite(
        True, paper="Sec. 3.2: B is the batch", code=LOSS_CODE, released=False, ledger="D14"
    )
    """Instances and codes of all processes, or of each alone."""


@dataclass(frozen=True)
class DataConfig:
    dataset: Literal["mimic", "chexpert"] = cite("mimic", paper="Sec. 4.1")
    """Corpus of image-report pairs."""
    valid_split: Literal["official", "merged"] = cite(
        "official",
        note="test images are not looked at",
        code=DATA_CODE,
        released="merged",
        ledger="D25",
    )
    """Validate on MIMIC's validate part, or on validate and test together."""
    min_words: int = cite(3, paper="Sec. 4.1", code=DATA_CODE)
    """Shorter reports are left out."""
    hand_picked_sections: Literal["drop", "keep"] = cite(
        "drop", code="the table of sections lacks them", note="54 studies"
    )
    """Studies whose text MIMIC's maintainers picked by hand, see `common.data.mimic_sections`."""
    pretrain_fraction: float = cite(1.0, paper="Sec. 4.1", ledger="D54")
    """Share of the training pairs."""
    shuffle_pairs: bool = cite(False, note="control: no learning possible")
    """Shuffle the reports over the images."""


@dataclass(frozen=True)
class OptimConfig:
    lr: float = cite(2e-5, paper="Sec. 4.1", code=f"{PRETRAIN}: learning_rate")
    """Highest learning rate of AdamW."""
    betas: tuple[float, float] = cite((0.9, 0.999), code="optimiser")
    """AdamW's decay rates."""
    weight_decay: float = cite(0.05, paper="Sec. 4.1", code=f"{PRETRAIN}: weight_decay")
    """Decoupled weight decay."""
    decay_exclude_1d: bool = cite(False, code="optimiser", ledger="D50")
    """Leave biases and normalisation layers undecayed."""
    batch_size: int = cite(144, paper="Sec. 4.1", code=f"{PRETRAIN}: 2 x 72", ledger="D28")
    """Global, over all processes."""
    epochs: int = cite(50, paper="Sec. 4.1")
    """Most epochs; the schedule's length."""
    warmup: float = cite(0.4, paper="Sec. 4.1: 20 of 50 epochs", code="scheduler")
    """Share of the steps with a linearly growing rate."""
    lr_floor: float = cite(1e-8, paper="Sec. 4.1", code="scheduler")
    """Learning rate of the first and the last step."""
    patience: int = cite(5, code="early stopping", ledger="D27 D49")
    """Epochs without a lower validation loss before training stops."""
    freeze_prototypes_epochs: int = cite(
        1, code=f"{PRETRAIN}: freeze_prototypes_epochs", ledger="D16"
    )
    """Epochs in which the prototypes get no gradient."""


@dataclass(frozen=True)
class PretrainConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RunConfig(seed=42)
    )
    """Seed 42 as released; full precision."""


PAPER = PretrainConfig()
RELEASED = released(PAPER)
PHANTOM = replace(
    PAPER,
    model=replace(
        PAPER.model,
        image=replace(
            PAPER.model.image,
            weights="none",
            patch=8,
            width=96,
            depth=4,
            heads=3,
            size=104,
            crop=96,
        ),
        # from random weights dropout drowns what little [CLS] sees of the words at first
        text=replace(PAPER.model.text, encoder=None, layers=2, width=128, heads=4, dropout=0.0),
        embedding_dim=128,
        head_width=256,
        prototypes=50,
    ),
    optim=replace(PAPER.optim, lr=1e-3, batch_size=48, epochs=12, warmup=0.1),
)


def with_resnet(cfg: PretrainConfig, **sizes: Any) -> PretrainConfig:
    """`cfg` with ResNet-50 instead of the ViT; `sizes` shrink it."""
    plain = replace(cfg.model.image, patch=None, width=None, depth=None, heads=None)
    image = replace(plain, **{"backbone": "resnet50.tv_in1k", **sizes})
    return replace(cfg, model=replace(cfg.model, image=image))


PRESETS = {
    "paper": PAPER,
    "paper-resnet50": with_resnet(PAPER),
    "released": RELEASED,
    "released-resnet50": with_resnet(RELEASED),
    "phantom": PHANTOM,
    "phantom-resnet50": with_resnet(
        PHANTOM,
        backbone="resnet10t",
        stem_width=8,
        channels=(16, 32, 64, 128),
        zero_init_last=True,
        resnet_input=96,
    ),
}

DECISIONS = {
    "D08": "A ResNet has no [CLS]: its regions count alike.",
    "D10": "The paper prints CPA without its minus; a cross-entropy is meant.",
    "D11": "Attention sums over the tokens of a pair (Eq. 4 prints the batch size).",
    "D12": "Token weights are the attention that the [CLS] query pays to each token.",
    "D24": "The number of pairs is printed at the start of each run and kept in its provenance.",
    "D29": "Pre-training on CheXpert and linear classification use `chexpert/gloria-v1`, disjoint "
    "and frontal; `chexpert/mgca-released` reproduces the leak.",
    "D30": "The 5x200 images are kept out of CheXpert's training part.",
    "D31": "RSNA is 26,684 images with label pneumonia.",
    "D32": "List V9A (or CXR-3A); 10 % of the training patients validate (`covidx/mgca-v1`), or "
    "20 % of the images (`covidx/mgca-released`).",
    "D37": "`object_cxr/mgca-v1` is 80/20, `object_cxr/mgca-released` 90/10; test is the dev part.",
    "D38": "70/15/15 of the images: `siim/gloria-v1`; `siim/gloria-released` leaks.",
    "D39": "The marker of negatives is read with and without its leading space.",
    "D40": "Both stages' table is read where there is one, else the first's; hashed.",
    "D42": "Mean over images; results also hold the mean of batch means and over positives.",
    "D43": "10 x focal - log dice.",
    "D44": "Table 2's caption prints 10 % twice; its third column is 100 %.",
    "D45": "Table 4's ITA cells on SIIM equal Table 3's ConVIRT row; printed as published.",
    "D46": "Seeds are named in every result; 0, 1, 2 and more where a committed cell shows a "
    "deviation.",
    "D47": "Label fractions are drawn by rule and hashed, never from a loader's state.",
    "D48": "Boxes are never changed in place.",
    "D51": "The ConVIRT row is MGCA's ITA at temperature 0.07 with the paper's encoders, labelled "
    "so; printed CheXpert and RSNA cells are quoted from ConVIRT and GLoRIA.",
    "D52": "Figure 3 shows the attention weights themselves (`mgca.figures`).",
    "D53": "MIMIC and COVIDx by patient; RSNA by image, its files name no patients (NIH's mapping "
    "does); SIIM by image; CheXpert, against the rule, by image as published "
    "(`chexpert/gloria-v1`), or with `--split chexpert/gloria-v1-patient`.",
}
"""Ledger points without an option, and what was decided."""
