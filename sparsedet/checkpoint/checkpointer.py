"""detectron2's checkpointer that refuses what would load wrongly, before it touches the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import parse_qs

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import nn

from ..errors import InputError
from ..files import replacing
from ..layers import LowRankLinear, SparseFusionConv2d
from ..weights import check_finite
from .class_names import KEY, model_class_names, read_class_names
from .preprocessing import (
    config_lines,
    model_preprocessing,
    read_preprocessing,
    same_preprocessing,
)
from .state_dicts import named_tensors, read_checkpoint, unwrap

# Buffers that older checkpoints have and newer models rebuild, or the reverse.
_REBUILT = ("pixel_mean", "pixel_std", "num_batches_tracked")


class SparseDetCheckpointer(DetectionCheckpointer):
    """Loads what DetectionCheckpointer loads, if it is data only and fits the model.

    - .pth, .pkl and .safetensors, in float32 or less, under ``model``, ``state_dict`` and other
      usual names, and with what torch.compile and DDP put before them.
    - No file can run code: all is read as data, and what is damaged is refused.
    - Weights that are not finite are neither loaded nor saved.
    - Weights whose recorded preprocessing is not the model's are refused; ``save`` records it.
    - ``save`` records the names of the classes, ``model.class_names``. With ``strict`` the model
      gets those of the checkpoint; a model that has names already, in training, keeps them: other
      ones are refused when it resumes, and begin anew where it starts from them.
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
        path = os.path.join(self.save_dir, f"{name}.pth")
        data = {"model": self.model.state_dict()}
        check_finite(f"{path}: not written", data["model"])
        preprocessing = model_preprocessing(self.model)
        if preprocessing is not None:
            data["preprocessing"] = preprocessing
        names = model_class_names(self.model)
        if names:
            data[KEY] = names
        data.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        data.update(kwargs)
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
        state, beside = unwrap(read_checkpoint(filename, self._path))
        if filename.endswith(".pkl") and not beside:  # of Caffe2, which has names of its own
            state = state["blobs"] if isinstance(state.get("blobs"), Mapping) else state
            state = {k: v for k, v in state.items() if not str(k).endswith("_momentum")}
            beside = {"__author__": "Caffe2", "matching_heuristics": True}
        elif filename.endswith(".pyth"):  # of pycls
            beside = {"__author__": "pycls", "matching_heuristics": True}
        tensors = named_tensors(self._path, state)
        check_finite(self._path, tensors)
        # Newer detectron2 takes it from the address.
        address = getattr(self, "_parsed_url_during_load", None)
        if address and parse_qs(address.query).get("matching_heuristics") == ["True"]:
            beside["matching_heuristics"] = True
        return {**beside, "model": tensors}

    def _load_model(self, checkpoint: dict):
        wanted = read_preprocessing(checkpoint, self._path)
        actual = model_preprocessing(self.model)
        if wanted and actual and not same_preprocessing(wanted, actual):
            raise InputError(
                f"{self._path}: trained on other images than the model expects; set "
                + ", ".join(config_lines(wanted))
            )
        # Names are matched here, not by the parent, so as to know the outcome beforehand.
        if checkpoint.pop("matching_heuristics", False) is True:
            try:
                checkpoint["model"] = align_and_update_state_dicts(
                    self.model.state_dict(),
                    checkpoint["model"],
                    c2_conversion=checkpoint.get("__author__") == "Caffe2",
                )
            except (AssertionError, IndexError, KeyError, ValueError) as error:
                reason = " ".join(str(error).split()) or "its names are not those of a network"
                raise InputError(f"{self._path}: {reason}") from error
        self._check_fit(checkpoint["model"])
        names = read_class_names(checkpoint, self._path)
        self._check_classes(names)
        incompatible = super()._load_model(checkpoint)
        if self._whole and names:
            self.model.class_names = names
        return incompatible

    def _check_classes(self, names: list[str] | None) -> None:
        own = model_class_names(self.model)
        if not names or not own or names == own:
            return
        differ = (
            f"{self._path}: trained for the classes {', '.join(names)}, "
            f"but those of the training set are {', '.join(own)}"
        )
        if self._whole:
            raise InputError(differ)
        self.logger.warning("%s: what tells them apart is trained anew", differ)

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
        found = {k: tuple(v.shape) for k, v in state.items()}
        loaded = [k for k in expected if found.get(k) == expected[k]]
        for key, value in self.model.state_dict().items():
            if key in found and value.is_floating_point() and not state[key].is_floating_point():
                raise InputError(
                    f"{self._path}: {key} is {state[key].dtype}; weights must be floating point"
                )
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
