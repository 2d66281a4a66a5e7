"""GLoRIA: local loss, word aggregation, padding, the whole step; and prepared images."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from benchmarks.oracles import gloria as oracle
from benchmarks.speed.timing import Jobs, Row, lengths, saved_bytes, timed
from common.data.images import read_grey, resize_and_pad
from common.data.prepare import open_prepared, prepare
from common.data.records import Exclusions, RecordTable
from gloria.config import PAPER, RELEASED
from gloria.losses import contrastive_loss, local_logits, pretrain_losses
from gloria.matching import ragged
from gloria.model import GLoRIA
from gloria.text import Tokens, WordPieces, aggregate_words

BATCH = 48
"""The published batch."""
ENCODER_BATCH = 8
"""Batch of the comparisons that run the published encoders, to bound time and memory."""


def local_loss(kind: str) -> Row:
    """Local loss at the published sizes: forward + backward, and what it keeps."""
    counts = lengths(kind, BATCH)
    maps = (0.1 * torch.randn(BATCH, 768, 19, 19)).requires_grad_()
    words = torch.randn(BATCH, int(counts.max()), 768, requires_grad=True)
    mask = torch.arange(words.shape[1]) < counts[:, None]

    def ours() -> Tensor:
        regions = maps.flatten(2).mT
        return contrastive_loss(
            local_logits(regions, ragged(words, mask), RELEASED.loss, RELEASED.model)
        )

    def loops() -> Tensor:
        texts = [w[m] for w, m in zip(words, mask, strict=True)]
        return oracle.released_local_loss(maps, texts, temp1=4.0, temp2=5.0, temp3=10.0)

    torch.testing.assert_close(ours(), loops(), rtol=1e-4, atol=1e-4)
    fast, slow = timed(lambda: ours().backward(), lambda: loops().backward(), repeats=2)
    kept = saved_bytes(ours) / saved_bytes(loops)
    return (
        f"{slow / fast:.1f}x faster",
        f"{kept:.2f} of the saved memory ({int(counts.sum())} words)",
    )


def word_aggregation() -> Row:
    """Word pieces of a batch to words, by one scatter and by a loop over tokens."""
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "card",
        "##io",
        "##meg",
        "##aly",
    ]
    pieces = WordPieces(vocabulary, max_tokens=97)
    texts = ["the cardiomegaly " * (int(n) // 2) for n in lengths("whole reports", BATCH)]
    tokens = pieces(texts)
    feat = torch.randn(*tokens.ids.shape, 768)
    names = [[vocabulary[i] for i in row] for row in tokens.ids.tolist()]

    def loops() -> list[Tensor]:
        return [oracle.aggregate(f, n, "mean")[0] for f, n in zip(feat, names, strict=True)]

    fast, slow = timed(lambda: aggregate_words(feat, tokens), loops)
    return f"{slow / fast:.1f}x faster", f"{int(tokens.mask.sum())} pieces, one scatter"


def published_model() -> GLoRIA:
    """The published architecture with random weights."""
    return GLoRIA(
        PAPER.model, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"] + ["##b"] * 28990
    )


def fake_tokens(counts: Tensor, pad: int | None = None) -> Tokens:
    """Texts of given word counts, one piece a word, padded to the longest or to `pad`."""
    width = pad or int(counts.max()) + 2
    position = torch.arange(width)
    last = counts[:, None] + 1
    ids = torch.where(position < last, 5, torch.where(position == last, 3, 0))
    ids[:, 0] = 2
    return Tokens(ids, position <= last, torch.where(position <= last, position, -1), counts)


def text_padding(model: GLoRIA) -> Row:
    """BioClinicalBERT's forward + backward, padded to 97 and to the longest text of the batch."""
    counts = lengths("single sentences", ENCODER_BATCH)
    short, long = fake_tokens(counts), fake_tokens(counts, PAPER.model.text.max_tokens)
    fast, slow = timed(
        *(lambda t=t: model.encode_texts(t).word_emb.sum().backward() for t in (short, long)),
        repeats=2,
    )
    return (
        f"{slow / fast:.1f}x faster",
        f"{short.ids.shape[1]} instead of 97 tokens, batch {ENCODER_BATCH}",
    )


def training_step(model: GLoRIA) -> Row:
    """Forward, losses, backward, clipping, Adam, against the bare encoders' forward + backward.

    Both start without gradients, as training steps do.
    """
    tokens = fake_tokens(lengths("single sentences", ENCODER_BATCH))
    images = torch.randn(ENCODER_BATCH, 1, PAPER.model.image.crop, PAPER.model.image.crop)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)

    def bare() -> None:
        feat = model.image_encoder(images)
        report, words = model.text_encoder.bert(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), return_dict=False
        )[:2][::-1]
        (feat.pooled.sum() + feat.local.mean() + words.sum() + report.sum()).backward()
        optimizer.zero_grad()

    def step() -> None:
        losses = pretrain_losses(model(images, tokens), PAPER.loss, PAPER.model)
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        optimizer.zero_grad()

    encoders, whole = timed(bare, step, repeats=5)
    return f"{whole / encoders:.2f}x the bare encoders", f"published sizes, batch {ENCODER_BATCH}"


def image_loading() -> Row:
    """Prepared images against decoding, resizing and padding full-size JPEGs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = 8
        grain = np.random.default_rng(0).normal(128, 20, (3056, 2544)).clip(0, 255).astype(np.uint8)
        for i in range(count):
            Image.fromarray(np.roll(grain, 17 * i)).save(folder / f"{i}.jpg", quality=90)
        ids = [str(i) for i in range(count)]
        columns = {
            "image_id": ids,
            "study_id": ids,
            "patient_id": ids,
            "path": [f"{i}.jpg" for i in ids],
        }

        frame = pd.DataFrame({**columns, "view": "frontal", "source_split": "train"})
        table = RecordTable(
            "speed", folder, frame, pd.DataFrame(index=frame.index), Exclusions(), count, "0"
        )
        prepare(table, folder, size=256, workers=1)
        images = open_prepared(folder, "speed", 256, table_sha256=table.table_sha256)
        assert images
        many = ids * 64
        fast, slow = timed(
            lambda: images.read(many),
            lambda: [resize_and_pad(read_grey(folder / f"{i}.jpg"), 256) for i in ids],
        )
    per_second = len(many) / fast
    return (
        f"{slow / count / (fast / len(many)):.0f}x faster",
        f"{per_second:.0f} images/s from the prepared form",
    )


def jobs() -> Jobs:
    """What to measure."""
    model = published_model()
    return [
        ("local loss, single sentences (>= 4x, <= 0.25)", lambda: local_loss("single sentences")),
        ("local loss, whole reports (>= 2x, <= 0.25)", lambda: local_loss("whole reports")),
        ("word aggregation", word_aggregation),
        ("prepared images (>= 30x)", image_loading),
        ("text padded to the longest", lambda: text_padding(model)),
        ("whole training step (<= 1.2x)", lambda: training_step(model)),
    ]
