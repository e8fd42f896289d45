"""detectron2's checkpointer that refuses what would load wrongly, before it touches the model."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import nn

from ..errors import InputError
from ..files import replacing
from ..layers import LowRankLinear, SparseFusionConv2d
from .preprocessing import config_lines, model_preprocessing, same_preprocessing

# Buffers that older checkpoints have and newer models rebuild, or the reverse.
_REBUILT = ("pixel_mean", "pixel_std", "num_batches_tracked")


class SparseDetCheckpointer(DetectionCheckpointer):
    """Loads what DetectionCheckpointer loads, if it is data only and fits the model.

    - No file can run code: .pth with ``weights_only``, .pkl with NumPy arrays and containers only.
    - Weights whose recorded preprocessing is not the model's are refused; ``save`` records it.
    - With ``strict``, and when a trainer resumes, the checkpoint and the model must agree in every
      parameter. Otherwise heads that differ are skipped with a warning, as detectron2 does, but at
      least one parameter of the backbone must be loaded, and no dense layer may stand for a
      compact one.
    - Files are written beside their place and then moved there.

    Args:
        model, save_dir, kwargs: as in DetectionCheckpointer.
        strict: for evaluation and inference.

    Raises (``load`` and ``save``):
        InputError: any refusal above; the model is then as it was.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, strict: bool = False, **kwargs):
        super().__init__(model, save_dir, **kwargs)
        self.strict = strict

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        if not path:
            if self.strict:
                raise InputError("MODEL.WEIGHTS is empty: name the checkpoint to load")
            return super().load(path, checkpointables)
        try:
            found = os.path.isfile(self.path_manager.get_local_path(path.split("?")[0]))
        except OSError as error:
            raise InputError(f"{path}: cannot be fetched: {error}") from error
        if not found:
            raise InputError(f"{path}: no such checkpoint; check MODEL.WEIGHTS")
        self._path = path
        resuming = bool(self.checkpointables) and checkpointables is None
        self._whole = self.strict or resuming
        try:
            return super().load(path, checkpointables)
        finally:
            self._parsed_url_during_load = None  # newer detectron2 insists on it in the next load

    def save(self, name: str, **kwargs) -> None:
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        preprocessing = model_preprocessing(self.model)
        if preprocessing is not None:
            data["preprocessing"] = preprocessing
        data.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        data.update(kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        with replacing(path) as temporary:
            torch.save(data, temporary)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with replacing(os.path.join(self.save_dir, "last_checkpoint")) as temporary:
            with open(temporary, "w") as file:
                file.write(last_filename_basename)

    def forget_last(self) -> None:
        """So that a run that begins anew in the folder of another is not taken for that one."""
        with suppress(FileNotFoundError):
            os.remove(os.path.join(self.save_dir, "last_checkpoint"))

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        try:
            return super().resume_or_load(path, resume=resume)
        except InputError as error:
            newest = self.get_checkpoint_file() if resume else ""
            if not newest or self._whole_keys(newest):
                raise
            state = "damaged" if os.path.exists(newest) else "missing"
            raise InputError(
                f"{newest}, the newest checkpoint, is {state}: {self._instead_of(newest)}"
            ) from error

    def _instead_of(self, damaged: str) -> str:
        """Which checkpoint to resume from, and how."""
        others = set(self.get_all_checkpoint_files()) - {damaged}
        for other in sorted(others, key=os.path.getmtime, reverse=True):
            if "trainer" in self._whole_keys(other):
                name, tag = os.path.basename(other), os.path.join(self.save_dir, "last_checkpoint")
                return f"to go on from {other}, the newest that is whole, write {name} into {tag}"
        return f"no other in {self.save_dir} is whole; start again without --resume"

    def _whole_keys(self, path: str) -> set[str]:
        """What a checkpoint holds; nothing if it cannot be read."""
        try:
            self._path = path
            return set(self._load_file(path))
        except InputError:
            return set()

    def _load_file(self, filename: str) -> dict:
        try:
            _check_data_only(filename)
            checkpoint = super()._load_file(filename)
            tensors = list(checkpoint["model"].values())
            valid = tensors and all(isinstance(t, (torch.Tensor, np.ndarray)) for t in tensors)
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise InputError(
                f"{self._path}: not a checkpoint of tensors only, or truncated"
            ) from error
        if not valid:
            raise InputError(f"{self._path}: not a checkpoint: no named tensors under 'model'")
        return checkpoint

    def _load_model(self, checkpoint: dict):
        wanted, actual = checkpoint.get("preprocessing"), model_preprocessing(self.model)
        if wanted and actual and not same_preprocessing(wanted, actual):
            raise InputError(
                f"{self._path}: trained on other images than the model expects; set "
                + ", ".join(config_lines(wanted))
            )
        # Names are matched here, not by the parent, so as to know the outcome beforehand.
        self._convert_ndarray_to_tensor(checkpoint["model"])
        if checkpoint.pop("matching_heuristics", False):
            try:
                checkpoint["model"] = align_and_update_state_dicts(
                    self.model.state_dict(),
                    checkpoint["model"],
                    c2_conversion=checkpoint.get("__author__") == "Caffe2",
                )
            except ValueError as error:
                raise InputError(f"{self._path}: {error}") from error
        self._check_fit(checkpoint["model"])
        return super()._load_model(checkpoint)

    def _first_dense_weight(self, found: Mapping[str, tuple]) -> str | None:
        """A weight in the checkpoint whose layer is compact in the model."""
        compact = [
            "." + name
            for name, module in self.model.named_modules()
            if isinstance(module, (SparseFusionConv2d, LowRankLinear))
        ]
        for key in found:
            layer, _, kind = key.rpartition(".")
            if kind == "weight" and any(name.endswith("." + layer) for name in compact):
                return key
        return None

    def _check_fit(self, state: Mapping[str, torch.Tensor]) -> None:
        expected = {k: tuple(v.shape) for k, v in self.model.state_dict().items()}
        found = {k.removeprefix("module."): tuple(v.shape) for k, v in state.items()}
        loaded = [k for k in expected if found.get(k) == expected[k]]
        if not self._whole:
            backbone = [k for k in expected if k.startswith("backbone.")] or list(expected)
            if not set(backbone) & set(loaded):
                raise InputError(
                    f"{self._path}: nothing in it fits the backbone, whose first parameter is "
                    f"{backbone[0]} {expected[backbone[0]]}; it holds {next(iter(found))} and "
                    f"{len(found) - 1} more. Published VGG weights go through sparsedet convert"
                )
            dense = self._first_dense_weight(found)
            if dense:
                raise InputError(
                    f"{self._path}: holds the dense {dense}, which is sparse or low rank in this "
                    "config; train the sparse model without these weights (MODEL.WEIGHTS '')"
                )
            return
        missing = [k for k in expected if k not in found and not k.endswith(_REBUILT)]
        reshaped = [k for k in expected if k in found and found[k] != expected[k]]
        unknown = [
            k
            for k in found
            if k not in expected and not k.endswith(_REBUILT) and "cell_anchors" not in k
        ]
        if missing or reshaped or unknown:
            if missing or reshaped:
                key = (missing + reshaped)[0]
                first = f"it has no {key} of shape {expected[key]}"
            else:
                first = f"the model has no {unknown[0]}"
            raise InputError(
                f"{self._path}: of another architecture than the config: {first} ({len(missing)} "
                f"missing, {len(reshaped)} of another shape, {len(unknown)} unknown)"
            )


def _check_data_only(filename: str) -> None:
    """Raise unless reading ``filename`` builds nothing but tensors, arrays and containers."""
    if filename.endswith(".pkl"):
        with open(filename, "rb") as file:
            _ArrayUnpickler(file, encoding="latin1").load()
    else:
        mmap = zipfile.is_zipfile(filename)  # so the tensors themselves are not read here
        torch.load(filename, map_location="cpu", weights_only=True, mmap=mmap)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and scalars in containers, the form of detectron2's model zoo."""

    _SAFE = {
        ("collections", "OrderedDict"),
        ("_codecs", "encode"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        *(
            (f"numpy.{core}.{module}", name)
            for core in ("core", "_core")
            for module, name in (
                ("multiarray", "_reconstruct"),
                ("multiarray", "scalar"),
                ("numeric", "_frombuffer"),
            )
        ),
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self._SAFE:
            raise pickle.UnpicklingError(f"{module}.{name} is not data")
        return super().find_class(module, name)
