"""Image-to-report retrieval on CheXpert 5x200 (GLoRIA Sec. 4.3, Table 1; ledger G38, G39)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.downstream import Downstream, batches
from common.interface import Predictor


def similarity_matrix(
    model: Predictor, data: Downstream, ids: Sequence[str], reports: Sequence[str]
) -> NDArray[np.float32]:
    """(images, reports) similarity; every image and every report is encoded once."""
    texts = model.embed_texts(reports)
    rows = []
    for pixels in batches(data.images, ids, "retrieval"):
        images = model.embed_images(model.normalise(pixels, generator=None))
        rows.append(model.similarity(images, texts))
    return torch.cat(rows).float().cpu().numpy()


def without_self(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """The query's own report taken out of its candidates (ledger G39)."""
    masked = similarity.copy()
    np.fill_diagonal(masked, -np.inf)
    return masked
