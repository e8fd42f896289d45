"""An exported detector on Ray Data: images in folders or object stores, on many machines."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..images import decode_image
from ..telemetry import require_engine
from .detector import Detector
from .records import record

BATCH = 16  # images that a worker takes at a time; they are not decoded before their turn


class RayDetector:
    """What ``ray.data.Dataset.map_batches`` runs in each worker.

    Of rows with "bytes" and "path" it makes rows with "path" and "record", the entry of the image
    in detections.json as JSON text; of what is no image, ``{"file": .., "error": ..}``. ::

        import ray
        from sparsedet.runtime.ray_data import RayDetector

        images = ray.data.read_binary_files("s3://bucket/photos", include_paths=True)
        images.map_batches(
            RayDetector, fn_constructor_args=("model.onnx",), batch_size=16, concurrency=4
        ).write_parquet("s3://bucket/detections")

    Args:
        model, engine, threads, precision: as :class:`Detector`; the file is where every worker
            finds it.
        above: the score that a detection exceeds.
    """

    def __init__(
        self,
        model: str,
        engine: str = "onnxruntime",
        threads: int | None = 1,
        precision: str = "f32",
        above: float = 0.5,
    ):
        self._detect = Detector(model, engine, threads, precision).above(above)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """One batch."""
        paths = [str(path) for path in batch["path"]]
        records = [self._record(*image) for image in zip(paths, batch["bytes"])]
        return {"path": paths, "record": [json.dumps(entry) for entry in records]}

    def _record(self, path: str, data: bytes) -> dict[str, Any]:
        try:
            image = decode_image(io.BytesIO(data), path)
            return record(path, image, self._detect(image))
        except InputError as error:
            return {"file": path, "error": str(error)}


def detect_on_ray(
    model: str, inputs: Sequence[str], workers: int, **detector: Any
) -> Iterator[dict[str, Any]]:
    """The entry of every image, in the order in which the workers of a Ray cluster are done.

    A worker that dies is replaced, and its images are given to others. The cluster is that of
    RAY_ADDRESS, or this machine.

    Args:
        inputs: files, folders and addresses that Ray reads.
        workers: each with a model of its own.
        detector: further arguments of :class:`RayDetector`.

    Raises:
        InputError: there is nothing to read, or a name that Ray would change.
    """
    for name in inputs:
        if re.search(r"[\t\n\r]", name):  # its parser of addresses leaves them out
            raise InputError(f"{name!r}: Ray reads no name with a tab or a line break; rename it")
    ray = require_engine("ray", "a cluster")
    try:
        # No processor of its own: the workers may have taken all of them.
        images = ray.data.read_binary_files(list(inputs), include_paths=True, num_cpus=0)
    except FileNotFoundError as error:
        raise InputError(f"{', '.join(inputs)}: no such file or folder") from error
    found = images.map_batches(
        RayDetector,
        fn_constructor_args=(model,),
        fn_constructor_kwargs=detector,
        batch_size=BATCH,
        concurrency=workers,
        num_cpus=detector.get("threads") or 1,
    )
    for row in found.iter_rows():
        yield json.loads(row["record"])
