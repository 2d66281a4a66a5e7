"""Released checkpoints: keys, ignored keys, and files that try to execute something."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.checkpoint import CheckpointError, read_foreign
from gloria.checkpoint import fresh_model, initialise, load_released, load_vocabulary, rename
from gloria.config import PHANTOM, RELEASED, ModelConfig
from gloria.model import GLoRIA
from gloria.score import load

LAYOUT = json.loads((Path(__file__).parents[1] / "golden/gloria/checkpoint_keys.json").read_text())
OURS_TO_RELEASED = (
    ("image_encoder.backbone.", "img_encoder.model."),
    ("global_image.", "img_encoder.global_embedder."),
    ("local_image.", "img_encoder.local_embedder."),
    ("text_encoder.bert.", "text_encoder.model."),
)


class Settings:
    """Stands for the pickled OmegaConf settings: a class that readers do not have."""

    def __init__(self) -> None:
        self.temp1 = 4.0


class Hostile:
    """Runs a command when unpickled by `pickle`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def small_released() -> ModelConfig:
    text = replace(
        PHANTOM.model.text, projection="none", wordpiece_pool="sum", global_pool="mean_fixed"
    )
    return replace(PHANTOM.model, text=text)


def model() -> GLoRIA:
    return fresh_model(replace(PHANTOM, model=small_released()))


def released_state(source: GLoRIA, prefix: str = "gloria.") -> dict[str, Tensor]:
    state = {}
    for key, value in source.state_dict().items():
        old, new = next(pair for pair in OURS_TO_RELEASED if key.startswith(pair[0]))
        state[prefix + new + key[len(old) :]] = value
    return state


@pytest.mark.parametrize("prefix", ["gloria.", "model.gloria.", "module.gloria."])
def test_released_file_loads_and_embeds_alike(tmp_path: Path, prefix: str) -> None:
    source = model().eval()
    state = released_state(source, prefix)
    state[f"{prefix}text_encoder.model.embeddings.position_ids"] = torch.arange(512)[None]
    path = tmp_path / "chexpert_resnet50.ckpt"
    torch.save({"epoch": 1, "state_dict": state, "hyper_parameters": Settings()}, path)
    loaded, ignored = load_released(
        str(path), vocabulary=source.vocabulary, config=small_released()
    )
    assert list(ignored) == [f"{prefix}text_encoder.model.embeddings.position_ids"]
    ours, theirs = (m.embed_texts(["small left pleural effusion"]) for m in (loaded, source))
    torch.testing.assert_close(ours.report_emb, theirs.report_emb)
    torch.testing.assert_close(ours.word_emb, theirs.word_emb)


def test_every_key_of_the_documented_layout_has_a_place() -> None:
    """The 520 tensors of the published size, on the meta device."""
    with torch.device("meta"):
        published = GLoRIA(RELEASED.model, ["piece"] * 28996)
        theirs = {k: torch.empty(shape) for k, (shape, _) in LAYOUT["state_dict"].items()}
    renamed, ignored = rename(theirs)
    assert not ignored
    assert {k: v.shape for k, v in renamed.items()} == {
        k: v.shape for k, v in published.state_dict().items()
    }


def test_unknown_and_missing_keys_are_errors(tmp_path: Path) -> None:
    source = model()
    state = released_state(source)
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {**state, "gloria.surprise": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match="surprise"):
        load_released(path, vocabulary=source.vocabulary, config=small_released())
    state.popitem()
    torch.save({"state_dict": state}, path)
    with pytest.raises(CheckpointError, match="1 keys missing"):
        load_released(path, vocabulary=source.vocabulary, config=small_released())


def test_a_folder_without_word_pieces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no vocab\.txt"):
        load_vocabulary(replace(PHANTOM.model.text, encoder=str(tmp_path)))


def test_nothing_is_executed(tmp_path: Path) -> None:
    """The file would create a mark if its pickle ran; plain pickle does run it."""
    mark, path = tmp_path / "mark", tmp_path / "hostile.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(1)}, "hyper_parameters": Hostile(mark)}, path)
    try:
        content = read_foreign(path)
    except CheckpointError:
        content = None
    assert not mark.exists()
    assert content is None or torch.equal(content["state_dict"]["w"], torch.zeros(1))
    pickle.loads(pickle.dumps(Hostile(mark)))  # noqa: S301
    assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"<html>expired login</html>", b"PK\x03\x04 cut"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.ckpt"):
        read_foreign(path)
    with pytest.raises(CheckpointError, match="no such"):
        read_foreign(tmp_path / "absent.ckpt")
    (tmp_path / "page.safetensors").write_text("<html>")
    with pytest.raises(CheckpointError, match="not readable as plain weights"):
        read_foreign(tmp_path / "page.safetensors")


def test_scoring_says_which_folder_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "best" / "config.json").write_text('{"settings": {"hidden": 1}}')
    with pytest.raises(CheckpointError, match=r"its model is .*run/best"):
        load(str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="not of a GLoRIA model"):
        load(str(tmp_path / "run" / "best"))
    with pytest.raises(CheckpointError, match="not of a GLoRIA model"):
        load(str(tmp_path))


def test_offline_hub_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match="phantom preset"):
        load_vocabulary(RELEASED.model.text)
    image = replace(
        PHANTOM.model.image, backbone="resnet50", weights="imagenet", channels=None, stem_width=None
    )
    fresh = fresh_model(
        replace(PHANTOM, model=replace(PHANTOM.model, image=replace(image, weights="none")))
    )
    fresh.config = replace(fresh.config, image=image)
    with pytest.raises(CheckpointError, match="ImageNet weights"):
        initialise(fresh)
