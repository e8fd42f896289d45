"""Images that wait in a file until a model asks for them."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


class PixelFile:
    """A file without a name, gone with the last input that is in it.

    Calibration goes over its images many times, one at a time. In memory they would take the more
    the more there are.
    """

    def __init__(self) -> None:
        file = tempfile.TemporaryFile(buffering=0)
        self.number, self.end = file.fileno(), 0
        weakref.finalize(self, file.close)

    def keep(self, image: torch.Tensor, **others: Any) -> StoredInput:
        """``{"image": image, **others}``, the image in the file."""
        pixels = np.ascontiguousarray(image.numpy())
        left, start = memoryview(pixels).cast("B"), self.end
        while left:  # a large write may be cut short
            written = os.pwrite(self.number, left, self.end)
            left, self.end = left[written:], self.end + written
        return StoredInput(self, start, pixels.dtype, image.shape, others)

    def read(self, start: int, dtype: np.dtype, shape: torch.Size) -> torch.Tensor:
        """A tensor that was kept from there on."""
        pixels = np.empty(shape, dtype)
        left = memoryview(pixels).cast("B")
        while left:
            read = os.preadv(self.number, [left], start)
            if not read:
                raise OSError("the file of images is shorter than what was written to it")
            left, start = left[read:], start + read
        return torch.from_numpy(pixels)


class StoredInput(Mapping):
    """One input of a detectron2 model, read anew whenever its image is asked for."""

    def __init__(
        self,
        file: PixelFile,
        start: int,
        dtype: np.dtype,
        shape: torch.Size,
        others: Mapping[str, Any],
    ):
        self._file, self._place, self._others = file, (start, dtype, shape), dict(others)

    def __getitem__(self, key: str) -> Any:
        return self._file.read(*self._place) if key == "image" else self._others[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["image", *self._others])

    def __len__(self) -> int:
        return 1 + len(self._others)
