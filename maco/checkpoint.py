"""Initial weights, and the checkpoints that the authors' code saves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import timm
from huggingface_hub import hf_hub_download
from torch import Tensor

from common.checkpoint import (
    CheckpointError,
    load_exactly,
    read_foreign,
    sound_settings,
    state_dict_of,
)
from common.data.phantom import VOCABULARY
from maco.config import RELEASED, ModelConfig, PretrainConfig, TextConfig
from maco.model import MaCo
from maco.text import read_vocabulary

KEYS = (
    (r"(cls_token|pos_embed|patch_embed\.|blocks\.|norm\.)", r"encoder.\1"),
    (r"decoder_(embed|pos_embed|blocks|norm)", r"decoder.\1"),
    (r"decoder_pred\.", "decoder.head."),
    (r"mask_token", "decoder.mask_token"),
    (r"bert_encoder\.model\.bert\.", "text_encoder.bert."),
    (r"img_mlp\.", "image_projection."),
    (r"pos_weight_img\.", "importance."),
    (r"Tpar$", "temperature"),
)
"""Released keys to ours."""

WORDS = "text_encoder.bert.embeddings.word_embeddings.weight"
IGNORED = {
    r"bert_encoder\.model\.cls\..*": "masked-language head whose output is dropped",
    r"bert_encoder\.model\.bert\.embeddings\.position_ids": (
        "a constant that transformers no longer stores"
    ),
    r"logit_scale": "a second temperature that no loss uses",
    r"(pos_weight_text|pos_cat)\..*": "position layers that no loss uses",
    r"WCE\.weight": "a buffer of the last batch's weights",
}
"""Released keys without a place in the model, and why."""


def rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Released keys to ours.

    Returns:
        The renamed tensors, and each ignored key with the reason.

    Raises:
        CheckpointError: If a key is neither known nor ignored.
    """
    renamed: dict[str, Tensor] = {}
    ignored: dict[str, str] = {}
    for key, value in state.items():
        bare = key.removeprefix("module.")
        reason = next(
            (why for pattern, why in IGNORED.items() if re.fullmatch(pattern, bare)), None
        )
        found = next(((old, new) for old, new in KEYS if re.match(old, bare)), None)
        if reason:
            ignored[key] = reason
        elif found:
            renamed[re.sub(found[0], found[1], bare, count=1)] = value
        else:
            raise CheckpointError(
                f"unknown key {key!r}; expected prefixes {[old for old, _ in KEYS]}"
            )
    return renamed, ignored


def sized_like(state: Mapping[str, Tensor], config: ModelConfig) -> ModelConfig:
    """`config` with the sizes that the shapes of `state` show; heads cannot be read (ledger A2).

    The temperature is the released code's factor itself, whatever `config` says (ledger L7).

    Raises:
        CheckpointError: If the patch embedding or a table is missing.
    """
    try:
        projection = state["encoder.patch_embed.proj.weight"]
        places = state["encoder.pos_embed"].shape[1] - 1
        pixels, width = state["decoder.head.weight"].shape
        pieces = state[WORDS]
        places_of_words = state["text_encoder.bert.embeddings.position_embeddings.weight"]
        inner = state["text_encoder.bert.encoder.layer.0.intermediate.dense.weight"]
    except KeyError as error:
        raise CheckpointError(f"not a MaCo checkpoint: {error.args[0]} is missing") from error
    grid, patch = round(places**0.5), projection.shape[-1]
    image = replace(
        config.image,
        patch=patch,
        input=grid * patch,
        size=grid * round((pixels / 3) ** 0.5),
        width=projection.shape[0],
        depth=_layers(state, "encoder.blocks"),
    )
    depth = _layers(state, "decoder.blocks")
    decoder = replace(config.decoder, width=width, depth=depth)
    layers = _layers(state, "text_encoder.bert.encoder.layer")
    text = replace(
        config.text,
        layers=layers,
        width=pieces.shape[1],
        feedforward=inner.shape[0],
        max_tokens=places_of_words.shape[0],
    )
    return replace(config, image=image, decoder=decoder, text=text, temperature="linear")


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(m[1]) for key in state if (m := pattern.match(key))), default=-1)


def load_released(
    path: str | Path, *, vocabulary: list[str] | None = None, config: ModelConfig | None = None
) -> tuple[MaCo, dict[str, str]]:
    """A checkpoint of the authors' code as a model; nothing that the file pickles is executed.

    Widths, depths and the target's side come from the file's shapes, heads from `config`.

    Args:
        path: `checkpoint-<epoch>.pth`.
        vocabulary: Word pieces, as many as the file's; by default those of `config.text`.
        config: What shapes cannot show; by default the released settings.

    Returns:
        The model in evaluation mode, and the ignored keys with reasons.

    Raises:
        CheckpointError: If the file is unreadable or its keys and shapes are not the model's, or
            its report encoder is of another depth than the released one and no config says its
            heads.
    """
    state, ignored = rename(state_dict_of(read_foreign(path), path))
    sizes = sized_like(state, config or RELEASED.model)
    if config is None and sizes.text.layers != RELEASED.model.text.layers:
        raise CheckpointError(
            f"{path} has {sizes.text.layers} layers of text, the released code "
            f"{RELEASED.model.text.layers}: shapes do not show how many heads they have, give "
            "`maco.checkpoint.load_released` a `config=`"
        )
    pieces = vocabulary or load_vocabulary(sizes.text)
    words = len(state[WORDS])
    if words != len(pieces):
        raise CheckpointError(
            f"{path} has {words} word pieces, the vocabulary {len(pieces)}: give `vocabulary=` the "
            "list that it was trained with"
        )
    try:
        model = MaCo(sizes, pieces)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    load_exactly(model, state, path=path)
    return model.eval(), ignored


def load_vocabulary(config: TextConfig) -> list[str]:
    """The word pieces: the phantom's own, a local folder's or file's, or the hub's.

    Raises:
        CheckpointError: If the folder has none, or the hub cannot be reached and no copy is cached.
    """
    name = config.vocabulary
    if name is None:
        return read_vocabulary(VOCABULARY)
    if Path(name).is_file():
        return read_vocabulary(Path(name))
    if Path(name).is_dir():
        if not (Path(name) / "vocab.txt").is_file():
            raise CheckpointError(f"{name} holds no vocab.txt: not a BERT folder")
        return read_vocabulary(Path(name) / "vocab.txt")
    try:
        return read_vocabulary(Path(hf_hub_download(name, "vocab.txt")))
    except Exception as error:
        raise CheckpointError(offline(name, "vocab.txt", "--model.text.vocabulary")) from error


def fresh_model(cfg: PretrainConfig) -> MaCo:
    """The model before pre-training: MAE's encoder where asked for, else random."""
    vocabulary = load_vocabulary(cfg.model.text)
    with sound_settings():
        model = MaCo(cfg.model, vocabulary)
    initialise(model)
    return model


def initialise(model: MaCo) -> None:
    """Load MAE's encoder where the settings ask for it; its own position table comes with it.

    Raises:
        CheckpointError: If the hub cannot be reached and no copy is cached, or sizes differ.
    """
    name = model.config.image.weights
    if name is None:
        return
    try:
        source = timm.create_model(name.removeprefix("timm/"), pretrained=True, num_classes=0)
    except Exception as error:
        raise CheckpointError(offline(name, "MAE weights", "--model.image.weights None")) from error
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("fc_norm")}
    load_exactly(model.encoder, state, path=Path(name))
    model.encoder.pos_embed.requires_grad_(False)


def offline(name: str, what: str, flag: str) -> str:
    """What to do when the hub does not answer."""
    return (
        f"{what} of {name} cannot be loaded: neither the model hub nor a cached copy is reachable. "
        f"Download it once with network access, give {flag} another value, or use the phantom "
        "preset"
    )
