"""Your own image: `python -m gloria.score film.png "small left pleural effusion" --model runs/...`.

Prints the similarity of a radiograph (PNG, JPEG or DICOM) to each phrase and draws where each
phrase's words look.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from common.checkpoint import CheckpointError
from common.data.images import read_grey, resize_and_pad
from common.data.tables import DataError
from gloria.checkpoint import load_released
from gloria.config import RELEASED, CompatConfig, SimilarityConfig
from gloria.figures import attention_figure
from gloria.matching import attention_maps
from gloria.model import GLoRIA

SOUND = replace(
    RELEASED.model,
    text=replace(RELEASED.model.text, inference_min_tokens=1),
    compat=CompatConfig(),
    similarity=SimilarityConfig(),
)
"""Released weights with the paper's inference, without the slips of the released functions."""


class Score(NamedTuple):
    """What the model says of one image and one phrase.

    Attributes:
        phrase: As given.
        similarity: Mean of local and global (Sec. 3.3).
        local: Matching function of Eq. 6.
        global_: Cosine of the global embeddings.
        words: The phrase's words.
        attention: (words, rows, columns) weights over the regions (Eq. 4); each word's sum to 1.
    """

    phrase: str
    similarity: float
    local: float
    global_: float
    words: list[str]
    attention: np.ndarray


def score(model: GLoRIA, image: str | Path, phrases: Sequence[str]) -> list[Score]:
    """Similarity and attention of one image file for each phrase.

    Raises:
        DataError: If the file is not an image.
        ValueError: If a phrase has no word.
    """
    images = model.embed_images(network_view(model, image))
    texts = model.embed_texts(phrases)
    local, global_ = model.similarities(images, texts)
    both = model.similarity(images, texts)
    pieces = model.word_pieces()
    words = pieces.words(pieces(model.clean(phrases)))
    scores = []
    for i, phrase in enumerate(phrases):
        n = len(words[i])
        maps = attention_maps(
            images.region_emb[0],
            texts.word_emb[i, 1 : n + 1],
            tau2=model.config.tau2,
            word_softmax=model.config.word_softmax,
        )
        grid = maps.reshape(n, *images.grid).cpu().numpy()
        scores.append(
            Score(
                phrase, float(both[0, i]), float(local[0, i]), float(global_[0, i]), words[i], grid
            )
        )
    return scores


def network_view(model: GLoRIA, image: str | Path) -> Tensor:
    """The (1, 1, crop, crop) input that the model sees of an image file."""
    pixels = resize_and_pad(read_grey(Path(image)), model.size).astype(np.uint8)
    return model.normalise(pixels[None])


@dataclass(frozen=True)
class Args:
    """One image, some phrases."""

    image: tyro.conf.Positional[Path]
    """PNG, JPEG or DICOM."""
    phrases: tyro.conf.Positional[tuple[str, ...]]
    """What to look for."""
    model: str = "runs/gloria/best"
    """Model folder, hub id, or a checkpoint (.ckpt) that the authors released."""
    out: Path = Path("attention.png")
    """Where the attention overlay goes."""


def load(name: str) -> GLoRIA:
    """A model folder, a hub id, or a released checkpoint.

    Raises:
        CheckpointError: If there is no such model, here or on the hub.
    """
    if name.endswith((".ckpt", ".pth", ".pt")):
        return load_released(Path(name), config=SOUND)[0]
    if (Path(name) / "best" / "config.json").is_file():
        raise CheckpointError(f"{name} is a run folder; its model is {name.rstrip('/')}/best")
    try:
        return GLoRIA.from_pretrained(name, strict=True).eval()
    except (TypeError, ValueError) as error:  # of the constructor: no settings, or another model's
        raise CheckpointError(f"{name}: config.json is not of a GLoRIA model, or absent") from error
    except (OSError, HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise CheckpointError(
            f"no model at {name!r}, neither as a folder nor on the hub; pre-train one with "
            "make pretrain-gloria, or give --model"
        ) from error


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    if not args.phrases:
        sys.exit("error: give at least one phrase, for instance 'small left pleural effusion'")
    try:
        model = load(args.model)
        scores = score(model, args.image, args.phrases)
        figure = attention_figure(network_view(model, args.image), scores)
        figure.savefig(args.out, dpi=110, bbox_inches="tight")
    except (CheckpointError, DataError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for s in scores:
        sys.stdout.write(
            f"{s.similarity:+.3f}  local {s.local:+.3f}  global {s.global_:+.3f}  {s.phrase}\n"
        )
    sys.stdout.write(f"attention overlay: {args.out}\n")


if __name__ == "__main__":
    main()
