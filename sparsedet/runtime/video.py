"""A video that is written whole or not at all."""

from __future__ import annotations

import os

import cv2
import numpy as np

from ..errors import InputError


class VideoFile:
    """An .mp4 that takes its place when :meth:`finish` finds all frames in it.

    A context manager: at the end of the block nothing is left of one that was not finished.
    """

    def __init__(self, path: str, rate: float):
        self.path = path
        self.rate = rate if 1 <= rate <= 240 else 25
        # OpenCV tells the kind of file by its suffix.
        self._temporary = f"{path}.{os.getpid()}.tmp.mp4"
        self._writer = cv2.VideoWriter()

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.release()
        if os.path.exists(self._temporary):
            os.remove(self._temporary)

    def write(self, frame: np.ndarray) -> None:
        """Add (H, W, 3) uint8, BGR, of one size for all.

        Raises:
            InputError: OpenCV cannot write here.
        """
        if not self._writer.isOpened():
            codec = cv2.VideoWriter_fourcc(*"mp4v")
            size = (frame.shape[1], frame.shape[0])
            if not self._writer.open(self._temporary, codec, self.rate, size):
                raise InputError(f"{self._temporary}: OpenCV cannot write an mp4 video here")
        self._writer.write(frame)

    def finish(self, count: int) -> None:
        """Put the video of ``count`` frames in place.

        Raises:
            InputError: there are fewer in it; OpenCV does not tell when the disk is full.
        """
        self._writer.release()
        if cv2.VideoCapture(self._temporary).get(cv2.CAP_PROP_FRAME_COUNT) < count:
            raise InputError(f"{self.path}: cannot be written whole; is the disk full?")
        os.replace(self._temporary, self.path)
