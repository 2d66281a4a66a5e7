"""Foreign checkpoints are data: their tensors are read, nothing they pickle is executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message says what was found and what was expected."""


@contextmanager
def sound_settings() -> Iterator[None]:
    """Say in one line that sizes which the user gave fit no network.

    Raises:
        CheckpointError: With what the library said of them.
    """
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"these model settings make no network: {error}") from error


class _Inert:
    """Stands in for a class that a pickle names: keeps nothing, calls nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_foreign(path: str | Path) -> Any:
    """The content of a `.safetensors` or `torch.save` file, on the CPU.

    Reads with PyTorch's weights-only unpickler; every class it does not know is replaced by one
    that does nothing, so a checkpoint with pickled settings loads and its settings come out inert.

    Raises:
        CheckpointError: If the file is absent, damaged, in the pre-1.6 format, or names a function
            that even the weights-only reader refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
            (type(name.rpartition(".")[2], (_Inert,), {}), name) for name in names
        ]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # whatever a damaged or hostile file provokes
        raise CheckpointError(f"{path}: not readable as plain weights: {error}") from error


def state_dict_of(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: its `state_dict` or `model` entry, or the whole mapping.

    Raises:
        CheckpointError: If there are none.
    """
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = (
        {k: v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors")
    return tensors


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], *, path: str | Path) -> None:
    """Load `state`, which must hold exactly the model's keys and shapes.

    Raises:
        CheckpointError: Lists missing, unexpected and misshapen keys.
    """
    own = model.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{k}: {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in sorted(set(own) & set(state))
        if own[k].shape != state[k].shape
    ]
    if missing or unexpected or shapes:
        raise CheckpointError(
            f"{path}: {len(missing)} keys missing {missing[:3]}, {len(unexpected)} unexpected "
            f"{unexpected[:3]}, {len(shapes)} misshapen {shapes[:3]}"
        )
    model.load_state_dict(dict(state))
