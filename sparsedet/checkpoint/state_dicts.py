"""Named tensors out of a checkpoint, in whatever form and under whatever names it was saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..extras import require
from ..pickles.arrays import read_arrays
from .torch_files import LEGACY, read_torch

# Under which others put their state_dict, the first of these that is there; the last two are
# averages that some trainers keep beside it.
WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "ema_state_dict", "ema")
COMPILED = "_orig_mod."  # torch.compile's
PARALLEL = "module."  # DataParallel's and DistributedDataParallel's
MOST = 20_000  # tensors


def is_checkpoint(start: bytes) -> bool:
    """Whether a file that starts with these (at least 9) bytes is of a format read here."""
    return start.startswith((b"PK\x03\x04", b"\x80")) or start[8:9] == b"{"


def read_checkpoint(path: str, name: str | None = None) -> dict:
    """All that is in a .pth, .pkl or .safetensors file, told apart by content.

    Args:
        name: what the user calls the file.

    Raises:
        InputError: damage, or anything but numbers, texts, tensors and arrays in containers.
    """
    name = name or path
    try:
        with open(path, "rb") as file:
            start = file.read(len(LEGACY))
            file.seek(0)
            if start[8:9] == b"{":
                return {"model": _read_safetensors(path)}
            if start.startswith(b"\x80") and start != LEGACY:
                data = read_arrays(file)
            else:
                data = read_torch(path)
    except InputError:
        raise
    except Exception as error:  # of damage nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{name}: not a checkpoint of tensors only, or truncated ({reason}); save the model's "
            "state_dict()"
        ) from error
    if not isinstance(data, dict):
        raise InputError(
            f"{name}: not a checkpoint: holds a {type(data).__name__}, not a state_dict of named "
            "tensors"
        )
    return data


def _read_safetensors(path: str) -> dict[str, torch.Tensor]:
    require("safetensors", f"{path}: reading it")
    from safetensors.torch import load_file

    return load_file(path)


def unwrap(data: dict) -> tuple[Mapping[Any, Any], dict]:
    """The state_dict in a checkpoint, and what is beside it; all of it where no name is known."""
    state: Mapping[Any, Any] = data
    beside: dict = {}
    for _ in WRAPPERS:
        key = next((key for key in WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if key is None:
            break
        if state is data:
            beside = {other: value for other, value in data.items() if other != key}
        state = state[key]
    return state, beside


def named_tensors(name: str, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a state_dict in float32, without the prefixes of torch.compile and DDP.

    What is not a tensor is left out.

    Args:
        name: of the file.

    Raises:
        InputError: a name that is not text or is there twice, a tensor that is not dense.
    """
    values = {key: value for key, value in state.items() if _is_tensor(value)}
    if not values or len(values) > MOST:
        raise InputError(f"{name}: not a checkpoint: no named tensors under 'model', or too many")
    for key in values:
        if not isinstance(key, str):
            raise InputError(f"{name}: not a checkpoint: {key!r}, a tensor's name, is not text")
    # Converted once where several names share it, as one file can hold very many names.
    converted: dict[int, torch.Tensor] = {}
    for key, value in values.items():
        if id(value) not in converted:
            converted[id(value)] = _tensor(name, key, value)
    tensors = {_plain(key): converted[id(value)] for key, value in values.items()}
    while all(key.startswith(PARALLEL) for key in tensors):
        tensors = {key.removeprefix(PARALLEL): value for key, value in tensors.items()}
    if len(tensors) < len(values):
        raise InputError(f"{name}: two tensors have one name without {COMPILED} and {PARALLEL}")
    return tensors


def _plain(key: str) -> str:
    return key.replace(COMPILED, "") if key.startswith(COMPILED) or "." + COMPILED in key else key


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def _tensor(name: str, key: str, value: torch.Tensor | np.ndarray) -> torch.Tensor:
    if isinstance(value, np.ndarray):  # a copy, in this machine's order of bytes
        value = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    plain = value.layout is torch.strided and value.device.type == "cpu"
    if not plain or value.is_quantized or value.is_complex():
        raise InputError(f"{name}: {key} is not a dense tensor of real numbers")
    return value.detach().float() if value.is_floating_point() else value.detach()
