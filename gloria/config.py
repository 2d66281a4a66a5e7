"""GLoRIA hyperparameters. Defaults are the paper's; `code=` names parts of the authors' code.

The paper prints no optimiser setting and no temperature value. Where it is silent PAPER takes
what the authors released, unless that is a bug. `ledger=` ids refer to the table in this
folder's README.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from common.config import RunConfig, cite, released

PRETRAIN = "pre-training config"
TEXT_CODE = "text model"
LOSS_CODE = "gloria/loss/gloria_loss.py"
DATA_CODE = "pre-training data set"
API_CODE = "inference functions"


@dataclass(frozen=True)
class ImageConfig:
    backbone: str = cite("resnet50.tv_in1k", paper="Sec. 3.1.1", ledger="G17")
    """timm name of a ResNet, with its weights; channel counts are read from the network."""
    stem_width: int | None = cite(None, note="the backbone's own")
    """Width of the stem, to shrink the backbone."""
    channels: tuple[int, ...] | None = cite(None, note="the backbone's own")
    """Widths of the stages, to shrink the backbone."""
    zero_init_last: bool = cite(False, code="torchvision's ResNet")
    """Whether random residual blocks start as identities; without effect on loaded weights."""
    weights: Literal["imagenet", "none"] = cite("imagenet", code=f"{PRETRAIN}: vision.pretrained")
    """Initial weights of the backbone."""
    local_stage: int = cite(3, code="vision model", ledger="G14")
    """Stage that gives the region features (paper: "an intermediate convolution layer")."""
    upsample: int | None = cite(299, code="vision model", ledger="G14")
    """Side to which the encoder upsamples its input, pixels; 19 x 19 regions at 299."""
    size: int = cite(256, code=f"{PRETRAIN}: image.imsize", ledger="G15")
    """Long side after the resize that precedes zero padding, pixels."""
    crop: int = cite(224, code=f"{PRETRAIN}: random_crop.crop_size", ledger="G15")
    """Random crop in training, centre crop otherwise, pixels."""


@dataclass(frozen=True)
class TextConfig:
    encoder: str | None = cite("emilyalsentzer/Bio_ClinicalBERT", paper="Sec. 3.1.2")
    """Hub id or local folder of the initial weights and word pieces; none: random, own word
    pieces."""
    layers: int = cite(12, code=f"{PRETRAIN}: text.bert_type")
    """Transformer layers."""
    width: int = cite(768, code=f"{PRETRAIN}: text.bert_type")
    """Width of the transformer."""
    heads: int = cite(12, code=f"{PRETRAIN}: text.bert_type")
    """Attention heads."""
    last_n_layers: int = cite(4, code=f"{PRETRAIN}: text.last_n_layers", ledger="G03")
    """Last layers whose hidden states are pooled."""
    layer_pool: Literal["sum", "mean"] = cite(
        "sum", code=f"{PRETRAIN}: aggregate_method", ledger="G03"
    )
    """How those layers are pooled."""
    wordpiece_pool: Literal["mean", "sum"] = cite(
        "mean",
        paper="Sec. 3.2.1",
        code=f"{TEXT_CODE}: aggregate_tokens",
        released="sum",
        ledger="G01",
    )
    """How the pieces of a word become the word's feature."""
    global_pool: Literal["sum", "mean_fixed"] = cite(
        "sum", paper="Sec. 3.1.2", code=TEXT_CODE, released="mean_fixed", ledger="G04"
    )
    """Report feature: sum of all piece features, or that sum over `max_tokens`."""
    projection: Literal["linear", "none"] = cite(
        "linear", paper="Sec. 3.2.1", code=TEXT_CODE, released="none", ledger="G02"
    )
    """Text representation functions R_tg and R_tl; released weights have none."""
    word_units: Literal["words", "pieces"] = cite(
        "words", paper="Sec. 3.2.1", code=f"{TEXT_CODE}: agg_tokens"
    )
    """What regions are matched with; `pieces` leaves [SEP] and padding in, as the switched-off
    aggregation does."""
    l2_norm: bool = cite(False, code=f"{TEXT_CODE}: norm")
    """Scale report and word features to length 1 before the projection."""
    sentence_split: Literal["released", "decimal_safe"] = cite(
        "released", code=DATA_CODE, ledger="G12"
    )
    """`released` also splits inside 1.8 cm."""
    inference_min_tokens: int = cite(
        1, note="a finding can be one word", code=API_CODE, released=2, ledger="G13"
    )
    """Sentences with fewer words are dropped at inference; training has `data.min_tokens`."""
    max_tokens: int = cite(97, code=f"{PRETRAIN}: text.word_num", ledger="G09")
    """Longest text, word pieces with [CLS] and [SEP]."""
    pad: Literal["longest", "max"] = cite(
        "longest", note="less work, same result but with pieces", released="max", ledger="G09"
    )
    """Pad to the longest text of the batch, or always to `max_tokens`."""


@dataclass(frozen=True)
class CompatConfig:
    unk_shortens: bool = cite(False, note="bug", code=LOSS_CODE, released=True, ledger="G06")
    """Each [UNK] shortens the text by a word."""
    char_caption_length: bool = cite(False, note="bug", code=API_CODE, released=True, ledger="G35")
    """Inference counts characters instead of words, so [SEP] and padding join as words."""
    train_mode_inference: bool = cite(False, note="bug", code=API_CODE, released=True, ledger="G36")
    """Inference leaves the image encoder's batch normalisation in training mode."""
    retrieval_skip_first: bool = cite(False, note="bug", code=API_CODE, ledger="G37")
    """Retrieval drops the first word and adds [SEP]."""


@dataclass(frozen=True)
class SimilarityConfig:
    use: Literal["both", "global", "local"] = cite("both", paper="Sec. 3.3.1, Table 1")
    """Which similarities score: their mean, or one alone."""
    local: Literal["paper", "max", "lse"] = cite(
        "paper", paper="Eq. 6", code=API_CODE, released="max", ledger="G27"
    )
    """Local similarity: Eq. 6, the best word (zero-shot code) or log-sum-exp over 0.1 (retrieval
    code)."""
    combine: Literal["mean", "zscore"] = cite(
        "mean", paper="Sec. 3.3.2", code=API_CODE, ledger="G28"
    )
    """Hybrid: plain mean, or mean of z-scores over the candidate texts (retrieval code)."""
    length_norm: bool = cite(False, paper="Eq. 6", ledger="G29")
    """Divide the sum over words by their number, so that long texts get no bonus."""


@dataclass(frozen=True)
class ModelConfig:
    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    compat: CompatConfig = field(default_factory=CompatConfig)
    similarity: SimilarityConfig = field(default_factory=SimilarityConfig)
    embedding_dim: int = cite(768, code=f"{PRETRAIN}: text.embedding_dim", ledger="G16")
    """Width of the joint space."""
    tau2: float = cite(
        0.25, paper="Eq. 4 (symbol)", code=f"{PRETRAIN}: temp1 = 1/tau2", ledger="G20"
    )
    """Temperature of the attention over regions."""
    tau3: float = cite(
        0.2, paper="Eq. 6 (symbol)", code=f"{PRETRAIN}: temp2 = 1/tau3", ledger="G21"
    )
    """Temperature of the matching over words."""
    word_softmax: bool = cite(True, paper="Sec. 3.2.3, prose", code=LOSS_CODE, ledger="G22")
    """Normalise the similarities of each region over the words first."""


@dataclass(frozen=True)
class LossConfig:
    tau1: float = cite(
        0.1, paper="Eq. 1 (symbol)", code=f"{PRETRAIN}: temp3 = 1/tau1", ledger="G19"
    )
    """Temperature of the global contrast."""
    match: Literal["paper", "released"] = cite(
        "paper", paper="Eq. 6", code=LOSS_CODE, released="released", ledger="G23"
    )
    """Matching function Z with the factor tau3 (Eq. 6), or without it."""
    tau_local: float = cite(
        0.02,
        paper="Eq. 7 prints tau2",
        note="0.02 on the paper's Z gives the released logits; tau2 makes them 12.5 times flatter",
        released=0.1,
        ledger="G24",
    )
    """Temperature of the local contrast, dividing Z."""
    words: Literal["words", "cls_words"] = cite(
        "words", paper="Sec. 3.2.3", code=LOSS_CODE, released="cls_words", ledger="G05"
    )
    """Whether [CLS] takes part in the local loss beside the words."""
    reduction: Literal["mean", "sum"] = cite(
        "mean", paper="Eq. 1 prints a sum", code=LOSS_CODE, ledger="G18"
    )
    """Over the batch; the optimum is the same, a sum interacts with gradient clipping."""
    global_weight: float = cite(1.0, paper="Eq. 9")
    """Weight of the two global terms."""
    local_weight: float = cite(1.0, paper="Eq. 9")
    """Weight of the two local terms."""
    image_to_text: float = cite(1.0, paper="Eq. 9")
    """Weight of the terms that choose a text for an image; ConVIRT: 0.75."""
    text_to_image: float = cite(1.0, paper="Eq. 9")
    """Weight of the terms that choose an image for a text; ConVIRT: 0.25."""
    negatives: Literal["local", "global"] = cite("local", code="single-process contrast")
    """Contrast within each process, or across all of them."""
    max_scores: int = cite(2**27, note="512 MiB of float32")
    """Word-region scores held at once by the local loss; more are recomputed in the backward
    pass."""


@dataclass(frozen=True)
class DataConfig:
    dataset: Literal["chexpert", "mimic"] = cite("chexpert", paper="Sec. 4.1")
    """Corpus of image-report pairs."""
    split: str = cite(
        "chexpert/gloria-v1",
        paper="Sec. 4.1",
        released="chexpert/gloria-released",
        ledger="G43 G44 G45",
    )
    """Split id. `…-released` leaks 98 % of its validation images; `…-v1-patient` splits
    patients."""
    reports: str | None = cite(None, note="the authors' table was never published")
    """CSV with path and report columns, instead of CheXpert Plus."""
    report_section: Literal["impression", "findings", "both"] = cite(
        "impression", paper='Sec. 3.1.2: "report"', code=DATA_CODE, ledger="G10"
    )
    """Section of the report that is used."""
    caption: Literal["report", "random_sentence"] = cite(
        "report", paper="Sec. 3.1.2", code=DATA_CODE, released="random_sentence", ledger="G07"
    )
    """Training text: the whole report, or one sentence drawn anew each time."""
    valid_caption: Literal["report", "random_sentence"] = cite(
        "report",
        note="a fixed text makes validation losses comparable",
        released="random_sentence",
        ledger="G66",
    )
    """Validation text."""
    word_budget: int | None = cite(None, code=DATA_CODE, note="bug", released=5, ledger="G08")
    """Stop reading a report when its running word count equals this."""
    min_tokens: int = cite(2, code=DATA_CODE, ledger="G13")
    """Sentences with fewer words are dropped in training."""
    keep_empty_sentences: bool = cite(
        False, note="bug", code=DATA_CODE, released=True, ledger="G11"
    )
    """Keep sentences whose tokens all vanish, as empty strings; needs `loss.words=cls_words`."""
    shuffle_pairs: bool = cite(False, note="control: no learning possible")
    """Shuffle the reports over the images."""


@dataclass(frozen=True)
class OptimConfig:
    lr: float = cite(5e-5, code=f"{PRETRAIN}: lr", ledger="G55")
    """Constant learning rate of Adam."""
    betas: tuple[float, float] = cite((0.5, 0.999), code="optimiser builder", ledger="G55")
    """Adam's decay rates."""
    weight_decay: float = cite(1e-6, code=f"{PRETRAIN}: weight_decay", ledger="G55")
    """L2 penalty inside Adam."""
    batch_size: int = cite(48, code=f"{PRETRAIN}: batch_size", ledger="G55")
    """Global, over all processes; `accumulate` multiplies what an optimiser step sees."""
    epochs: int = cite(50, code=f"{PRETRAIN}: max_epochs", ledger="G55")
    """Most epochs."""
    patience: int = cite(10, code=f"{PRETRAIN}: early_stopping")
    """Epochs without a lower validation loss before training stops."""
    clip_norm: float | None = cite(0.25, code=f"{PRETRAIN}: gradient_clip_val", ledger="G65")
    """Largest gradient norm."""
    plateau: Literal["off", "epoch"] = cite(
        "off",
        code=f"{PRETRAIN}: scheduler",
        note="the released scheduler never steps",
        ledger="G56",
    )
    """Halve the rate after `plateau_patience` epochs without a lower validation loss."""
    plateau_patience: int = cite(5, code=f"{PRETRAIN}: scheduler")
    """Epochs; used by `plateau=epoch`."""


@dataclass(frozen=True)
class PretrainConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RunConfig(precision="fp16")
    )
    """Precision fp16: the authors' 16-bit AMP (ledger G65); CPUs fall back to fp32."""


PAPER = PretrainConfig()
RELEASED = released(PAPER)
PHANTOM = replace(
    PAPER,
    model=replace(
        PAPER.model,
        image=replace(
            PAPER.model.image,
            backbone="resnet10t",
            stem_width=8,
            channels=(16, 32, 64, 128),
            zero_init_last=True,
            weights="none",
            size=104,
            crop=96,
            upsample=96,
        ),
        text=replace(
            PAPER.model.text,
            encoder=None,
            layers=2,
            width=128,
            heads=4,
            last_n_layers=2,
        ),
        embedding_dim=128,
    ),
    # 2,500 short reports: trained on them whole, phrases score by their length (README, Known gaps)
    data=replace(PAPER.data, caption="random_sentence"),
    optim=replace(PAPER.optim, lr=1e-3, betas=(0.9, 0.999), epochs=12),
    run=replace(PAPER.run, precision="no"),
)
PRESETS = {"paper": PAPER, "released": RELEASED, "phantom": PHANTOM}

DECISIONS = {
    "G25": "Eq. 3 makes s regions x words while Eq. 4 indexes words first; ours is words x "
    "regions.",
    "G26": "The paper calls its losses asymmetric to modality; both directions are trained "
    "(Eq. 9).",
    "G34": "The prompts for RSNA were not released; ours are `gloria/prompts.py: RSNA`.",
    "G38": "The released retrieval class cannot run. Retrieval scores with the paper's hybrid "
    "similarity; the class's arithmetic is `similarity.local=lse`, `similarity.combine=zscore`, "
    "`compat.retrieval_skip_first`.",
    "G39": "The query's own report is a candidate; results also hold Precision@K without it.",
    "G40": "The paper lists four garbled class names; the five competition findings are meant.",
    "G41": "Drawn by the rule from the training table with one numpy state of seed 6: split "
    "`chexpert5x200/gloria-v1`; `chexpert5x200/seed<k>` for others.",
    "G42": "The 5x200 images are excluded from pre-training and classifier training; by patient in "
    "`chexpert/gloria-v1-patient`.",
    "G46": "Drawn after the frontal filter with the run's seed, nested; `--fraction-rule sample` "
    "draws as pandas does.",
    "G47": "`chexpert_mixed`: uncertain Atelectasis, Edema, Pleural Effusion are 1, the others 0; "
    "blank is 0.",
    "G48": "RSNA is 26,684 images, pneumonia box or not; the paper describes it as pneumothorax.",
    "G49": "70/15/15, seed 0, unstratified: split `rsna/gloria-v1`; the paper's shares sum to "
    "130 %.",
    "G50": "70/15/15 of the images: `siim/gloria-v1`; `siim/gloria-released` leaks.",
    "G51": "Column and marker are read with and without their leading space.",
    "G52": "All positives and as many random negatives are trained on; all images are tested.",
    "G53": "Mean over images, an empty prediction of an empty mask being 1; results also hold the "
    "mean over positives and that of batch means.",
    "G54": "Masks are area-resized, soft in the loss, cut at 0.5 for the metric.",
    "G57": "The best weights by the value that is monitored on validation are tested; `last/` lies "
    "beside `best/`.",
    "G58": "Seeds are named in every result; 0, 1, 2 where a committed cell shows a deviation "
    "(the paper averages five runs).",
    "G59": "The frozen encoder's batch normalisation is in evaluation mode.",
    "G60": "Linear classification on a frozen encoder, as the text and the released settings "
    "have it.",
    "G61": "Baselines take the same path as GLoRIA: frozen, same input size.",
    "G62": "ConVIRT is GLoRIA's encoders and heads with the global loss, temperature 0.1, "
    "weights 0.75 / 0.25.",
    "G63": "VSE++ 100 % is printed 524 and read as 52.4.",
    "G67": "Crops and sentence draws come from (seed, epoch, position), never from a worker's "
    "state.",
    "G68": "Unknown options and presets are errors.",
    "G70": "Batches keep their order; any batch size works, 1 included.",
}
"""Ledger points without an option, and what was decided."""
