"""MGCA: word aggregation, token alignment, padding, the whole step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.oracles import mgca as oracle
from benchmarks.speed.timing import Jobs, Row, lengths, timed
from mgca.config import PAPER, PRESETS
from mgca.losses import pretrain_losses, token_loss
from mgca.model import MGCA, ImageOutput, Output, TextOutput
from mgca.text import Tokens, WordPieces, aggregate_words

BATCH = 72
"""The published share of one device."""
ENCODER_BATCH = 8
"""Batch of the comparisons that run the published encoders, to bound time and memory."""
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "card", "##io", "##megaly"]


def word_aggregation() -> Row:
    """Word pieces of a batch to words, by one scatter and by a loop over tokens; with backward."""
    pieces = WordPieces(VOCABULARY, max_tokens=PAPER.model.text.max_tokens)
    tokens = pieces(["the cardiomegaly " * (int(n) // 2) for n in lengths("whole reports", BATCH)])
    feat = torch.randn(*tokens.ids.shape, PAPER.model.text.width, requires_grad=True)
    attention = torch.rand(tokens.ids.shape)
    names = [[VOCABULARY[i] for i in row] for row in tokens.ids.tolist()]
    slots = int(tokens.word_index.max()) + 1

    def ours() -> Tensor:
        found = aggregate_words(feat, attention, tokens, slots=slots)
        return found.words.sum() + found.report.sum()

    def loops() -> Tensor:
        texts = zip(feat, attention, names, strict=True)
        return torch.stack([oracle.aggregate(*text)[0].sum() for text in texts]).sum()

    torch.testing.assert_close(ours(), loops(), rtol=1e-3, atol=1e-1)
    fast, slow = timed(lambda: ours().backward(), lambda: loops().backward(), repeats=2)
    return f"{slow / fast:.1f}x faster", f"{int(tokens.mask.sum())} pieces, one scatter, backward"


def token_alignment() -> Row:
    """Token alignment of a batch at once and pair by pair, forward + backward, same loss."""
    counts = lengths("whole reports", BATCH)
    patches = F.normalize(torch.randn(BATCH, 196, 128), dim=-1).requires_grad_()
    mask = torch.arange(int(counts.max())) < counts[:, None]
    words = (F.normalize(torch.randn(*mask.shape, 128), dim=-1) * mask[..., None]).requires_grad_()
    weights = torch.rand(mask.shape) * mask
    image = ImageOutput(patches[:, 0], patches, torch.rand(BATCH, 196), (14, 14))
    text = TextOutput(words[:, 0], words, weights, mask)
    out = Output(image, text, None, None, patches[:, 0], patches[:, 0])
    tau = PAPER.loss.tau_cta

    def ours() -> Tensor:
        return token_loss(out, PAPER.loss, mask_padding=True)

    def loops() -> Tensor:
        texts = [w[m] for w, m in zip(words, mask, strict=True)]
        shares = [w[m] for w, m in zip(weights, mask, strict=True)]
        assert image.patch_weights is not None
        return oracle.token_loss(patches, texts, image.patch_weights, shares, tau)

    torch.testing.assert_close(ours(), loops(), rtol=1e-5, atol=1e-5)
    fast, slow = timed(lambda: ours().backward(), lambda: loops().backward())
    return f"{slow / fast:.2f}x faster", "no loop over the batch; a loop wastes no padding on a CPU"


def published_model() -> MGCA:
    """The published architecture with random weights."""
    return MGCA(PAPER.model, VOCABULARY[:6] + ["##b"] * 28990)


def fake_tokens(counts: Tensor, pad: int | None = None) -> Tokens:
    """Texts of given word counts, one piece a word, padded to the longest or to `pad`."""
    position = torch.arange(pad or int(counts.max()) + 2)
    last = counts[:, None] + 1
    ids = torch.where(position < last, 5, torch.where(position == last, 3, 0))
    ids[:, 0] = 2
    return Tokens(ids, position <= last, torch.where(position <= last, position, -1))


def text_padding(model: MGCA) -> Row:
    """BioClinicalBERT's forward + backward, padded to 112 and to the longest of the batch."""
    counts = lengths("whole reports", ENCODER_BATCH)
    most = PAPER.model.text.max_tokens
    short, long = fake_tokens(counts), fake_tokens(counts, most)
    fast, slow = timed(
        *(lambda t=t: model.encode_texts(t).word_emb.sum().backward() for t in (short, long)),
        repeats=2,
    )
    note = f"{short.ids.shape[1]} instead of {most} tokens, batch {ENCODER_BATCH}"
    return f"{slow / fast:.2f}x faster", note


def training_step(preset: str) -> Row:
    """Forward, losses, backward, AdamW, against the bare encoders' forward + backward.

    Both start without gradients, as training steps do.
    """
    cfg = PRESETS[preset]
    model = MGCA(cfg.model, VOCABULARY[:6] + ["##b"] * 28990)
    model.freeze_unused(cfg.loss)
    tokens = fake_tokens(lengths("whole reports", ENCODER_BATCH))
    images = torch.randn(ENCODER_BATCH, 1, cfg.model.image.crop, cfg.model.image.crop)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def bare() -> None:
        feat = model.image_encoder(images)
        words = model.text_encoder.bert(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), return_dict=False
        )[0]
        (feat.pooled.sum() + feat.tokens.mean() + words.sum()).backward()
        optimizer.zero_grad()

    def step() -> None:
        losses = pretrain_losses(model(images, tokens), cfg.loss, mask_padding=True)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    encoders, whole = timed(bare, step, repeats=5)
    return f"{whole / encoders:.2f}x the bare encoders", f"published sizes, batch {ENCODER_BATCH}"


def jobs() -> Jobs:
    """What to measure."""
    return [
        ("word aggregation (>= 3x)", word_aggregation),
        ("token alignment", token_alignment),
        ("text padded to the longest", lambda: text_padding(published_model())),
        ("whole training step, ViT-B/16 (<= 1.15x)", lambda: training_step("paper")),
        ("whole training step, ResNet-50 (<= 1.15x)", lambda: training_step("paper-resnet50")),
    ]
