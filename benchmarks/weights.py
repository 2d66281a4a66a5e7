"""Models ready for evaluation: the best weights of a run, or fresh ones for a baseline."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import blip
from benchmarks.core import Model, NotRunnable
from benchmarks.models import settings
from common import config
from common.checkpoint import CheckpointError
from common.data.tables import sha256
from common.interface import Encoder
from convirt.checkpoint import fresh_model as fresh_convirt
from convirt.model import ConVIRT
from gloria.checkpoint import fresh_model as fresh_gloria
from gloria.checkpoint import load_released as released_gloria
from gloria.model import GLoRIA
from imitate.checkpoint import encoder_alone
from imitate.checkpoint import fresh_model as fresh_imitate
from imitate.checkpoint import load_released as released_imitate
from imitate.model import IMITATE
from lrclr.checkpoint import fresh_model as fresh_lrclr
from lrclr.checkpoint import load_released as released_lrclr
from lrclr.model import LRCLR
from maco.checkpoint import fresh_model as fresh_maco
from maco.checkpoint import load_released as released_maco
from maco.model import MaCo
from maco.text import read_vocabulary
from mgca.checkpoint import fresh_model as fresh_mgca
from mgca.checkpoint import load_released as released_mgca
from mgca.model import MGCA

FRESH: dict[str, Callable[[Any], Any]] = {
    "blip": blip.tower,
    "convirt": fresh_convirt,
    "gloria": fresh_gloria,
    "imitate": fresh_imitate,
    "lrclr": fresh_lrclr,
    "maco": fresh_maco,
    "mgca": fresh_mgca,
}
"""A model before pre-training, by paper."""
LOAD: dict[str, Callable[..., Any]] = {
    "convirt": ConVIRT.from_pretrained,
    "gloria": GLoRIA.from_pretrained,
    "imitate": IMITATE.from_pretrained,
    "lrclr": LRCLR.from_pretrained,
    "maco": MaCo.from_pretrained,
    "mgca": MGCA.from_pretrained,
}
"""A model from its folder, by paper."""
RELEASED: dict[str, Callable[..., tuple[Any, dict[str, str]]]] = {
    "chexzero": released_lrclr,
    "gloria": released_gloria,
    "imitate": released_imitate,
    "maco": released_maco,
    "mgca-resnet50": released_mgca,
    "mgca-vit": released_mgca,
}
"""A model from a file of its authors, by its id."""


def other_settings(run: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """What a run's model, loss, data, optimiser, seed and length have that `wanted` has not.

    By flag. Where its reports lay and how precisely it computed is no setting.

    Raises:
        CheckpointError: If the folder holds no finished run.
    """
    if not (run / "provenance.json").is_file():
        raise CheckpointError(f"{run} holds no finished run; pre-train it first")
    there = _flat(json.loads((run / "run.json").read_text()))
    here = _flat(json.loads(json.dumps(wanted)))
    names = {k for k in {*there, *here} if not k.startswith("run.")} - {"data.reports"}
    names |= {"run.seed", "run.max_epochs", "run.accumulate"}
    differ = {k for k in names if there.get(k) != here.get(k)}
    return {k: there.get(k) for k in sorted(differ)}


def _flat(settings: dict[str, Any], start: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{start}{name}.") if inner else {f"{start}{name}": value}
    return found


def from_authors(
    model: Model, path: Path, vocabulary: Path | None, *, reads_text: bool
) -> tuple[Encoder, dict[str, Any]]:
    """A checkpoint that a paper's authors released, in evaluation mode, and what a result says.

    Args:
        model: Whose layout the file has.
        path: The authors' file; nothing that it pickles is executed.
        vocabulary: File of the word pieces, as `maco.text.read_vocabulary` reads it; by default
            those of the hub.
        reads_text: Whether a file of the image encoder alone is too little.

    Raises:
        CheckpointError: If the model has no released layout, or the file is of another.
        NotRunnable: If the file lacks what is read.
    """
    if model.id not in RELEASED:
        known = ", ".join(RELEASED)
        raise CheckpointError(f"{model.id} has no released layout; these have one: {known}")
    if vocabulary and model.paper == "lrclr":
        raise CheckpointError("CheXzero's files need no --vocabulary: the word pieces are CLIP's")
    if reads_text and model.paper == "imitate" and encoder_alone(path):
        raise NotRunnable(
            f"{path.name} holds an image encoder alone: its text side would be random"
        )
    words = {"vocabulary": read_vocabulary(vocabulary)} if vocabulary else {}
    found, ignored = RELEASED[model.id](path, **words)
    wanted = settings(model, "real", 0).model.image
    if getattr(found.config.image, "backbone", None) != getattr(wanted, "backbone", None):
        raise CheckpointError(
            f"{path} holds a {found.config.image.backbone}, {model.id} is a {wanted.backbone}"
        )
    return found.to(device()).eval(), {
        "preset": "released",
        "model_settings": config.to_dict(found.config),
        "other_settings": {"checkpoint": path.name, "sha256": sha256(path)},
        "unused_keys": ignored,
    }


def device() -> torch.device:
    """The accelerator if there is one."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def ready(
    model: Model,
    corpus: str,
    seed: int,
    run: Path,
    *,
    any_settings: bool = False,
    reads_text: bool = False,
) -> Encoder:
    """The model in evaluation mode: its best weights from `run`, or fresh for a baseline.

    With `any_settings` the run need not have been made with the model's own settings. A baseline
    whose text side is not read has a random one.

    Raises:
        CheckpointError: If `run` is unfinished, or holds another model than the one asked for.
        NotRunnable: If its starting weights cannot be had.
    """
    if corpus == "phantom" and model.not_on_phantom:
        raise NotRunnable(model.not_on_phantom)
    torch.manual_seed(seed)
    cfg = settings(model, corpus, seed)
    if model.pretrained:
        other = other_settings(run, config.to_dict(cfg))
        if other and not any_settings:
            raise CheckpointError(
                f"{run} was made with other settings: {other}; --any-settings evaluates it as it is"
            )
        try:
            return LOAD[model.paper](str(run / "best"), strict=True).to(device()).eval()
        except (TypeError, ValueError) as error:  # of the constructor: another paper's settings
            raise CheckpointError(f"{run / 'best'} is no {model.paper} model: {error}") from error
    if corpus == "phantom" and getattr(cfg.model.image, "weights", None) == "imagenet":
        raise NotRunnable("no ImageNet weights exist for the phantom preset's small encoder")
    if hasattr(cfg.model, "text") and not reads_text:
        names = {"encoder"} & set(vars(cfg.model.text))
        text = replace(cfg.model.text, **dict.fromkeys(names))
        cfg = replace(cfg, model=replace(cfg.model, text=text))
    try:
        return FRESH[model.paper](cfg).to(device()).eval()
    except CheckpointError as error:
        raise NotRunnable(str(error)) from error
