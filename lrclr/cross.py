"""The cross-modality transformer over [CLS], regions and words (Sec. 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from lrclr.config import CrossConfig, RegionConfig
from lrclr.regions import Regions, class_row, gather, select

if TYPE_CHECKING:
    from lrclr.hosts import ImageTokens, TextTokens


class Local(NamedTuple):
    """Class tokens after the joint pass.

    Attributes:
        image: (B, D) v_l.
        text: (B, D) t_l.
        scale: Scalar, the module's own learned scale.
        regions: What was selected.
    """

    image: Tensor
    text: Tensor
    scale: Tensor
    regions: Regions


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), as CLIP has."""

    def forward(self, x: Tensor) -> Tensor:
        """Element by element."""
        return x * (1.702 * x).sigmoid()


class Block(nn.Module):
    """A pre-norm transformer block of CLIP, with the first weights of its text transformer.

    Args:
        width: Of the tokens.
        heads: Of the attention.
        depth: Blocks of the transformer, which scale the first weights.
    """

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        inner = 4 * width
        grow, shrink = nn.Linear(width, inner), nn.Linear(inner, width)
        self.mlp = nn.Sequential(grow, QuickGELU(), shrink)
        nn.init.normal_(self.attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(grow.weight, std=(2 * width) ** -0.5)
        for last in (self.attn.out_proj, shrink):
            nn.init.normal_(last.weight, std=width**-0.5 * (2 * depth) ** -0.5)

    def forward(self, x: Tensor, hidden: Tensor, weights: bool) -> tuple[Tensor, Tensor | None]:
        """(B, M, D), (B, M) True = masked, to (B, M, D) and, if asked, attention (B, H, M, M)."""
        y = self.ln_1(x)
        seen, found = self.attn(
            y, y, y, key_padding_mask=hidden, need_weights=weights, average_attn_weights=False
        )
        x = x + seen
        return x + self.mlp(self.ln_2(x)), found


class CrossModality(nn.Module):
    """Self-attention over `[CLS, regions, words]`, read at the image's and the text's class token.

    Args:
        image_width: Of the host's image tokens.
        text_width: Of the host's text tokens.
        config: Sizes.
    """

    def __init__(self, image_width: int, text_width: int, config: CrossConfig) -> None:
        super().__init__()
        width = config.width
        self.image_in, self.text_in = nn.Linear(image_width, width), nn.Linear(text_width, width)
        self.types = nn.Parameter(torch.zeros(2, width), requires_grad=config.type_embed)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.depth) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(
        self, regions: Tensor, text: TextTokens, *, weights: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One joint pass a pair.

        Args:
            regions: (B, 1 + K, image width), [CLS] first.
            text: B texts.
            weights: Return the last block's attention.

        Returns:
            v_l (B, D), t_l (B, D), and the attention (B, H, M, M) if asked for.
        """
        image = self.image_in(regions) + self.types[0]
        words = self.text_in(text.tokens) + self.types[1]
        x = torch.cat([image, words], dim=1)
        there = torch.ones(image.shape[:2], dtype=torch.bool, device=x.device)
        hidden = ~torch.cat([there, text.valid], dim=1)
        found = None
        for block in self.blocks:
            x, found = block(x, hidden, weights)
        x = self.norm(x)
        rows = torch.arange(len(x), device=x.device)
        return x[:, 0], x[rows, image.shape[1] + text.cls_index], found

    def of_tokens(self, image: ImageTokens, text: TextTokens, cfg: RegionConfig) -> Local:
        """Select regions, gather their tokens, and pass them with the paired text."""
        assert image.attention is not None
        regions = select(class_row(image.attention, cfg), image.prefix)
        v, t, _ = self(gather(image.tokens, regions, image.prefix), text)
        return Local(v, t, self.logit_scale.exp(), regions)

    def all_pairs(self, regions: Tensor, text: TextTokens, *, normalize: bool = True) -> Tensor:
        """Similarity of every image with every text from their own joint pass: (B, B) raw.

        Leak-free, at B^2 passes: what pair (i, k) sees is image i and text k alone.
        """
        size = len(regions)
        image = regions.repeat_interleave(size, dim=0)
        words = type(text)(*(part.repeat(size, *[1] * (part.ndim - 1)) for part in text))
        v, t, _ = self(image, words)
        if normalize:
            v, t = (nn.functional.normalize(x, dim=-1) for x in (v, t))
        return (v * t).sum(dim=-1).view(size, size)


def prompt_scores(attention: Tensor, text: TextTokens, count: int) -> Tensor:
    """How much a prompt's end token attends to each region (Fig. 4): mean over heads.

    Args:
        attention: (B, H, M, M) of the last block.
        text: The prompts.
        count: K regions.

    Returns:
        (B, K); [CLS] and words share the softmax, so a row sums to less than 1.
    """
    rows = torch.arange(len(attention), device=attention.device)
    return attention[rows, :, 1 + count + text.cls_index, 1 : 1 + count].mean(dim=1)
