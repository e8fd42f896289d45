"""Smaller, faster detectors on detectron2 by fusing sparse, complementary convolutions.

A public name is imported when it is first used: what runs exported files needs neither torch nor
detectron2, and detectron2's registries fill when a name is asked for that needs them.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    # what runs exported files
    "Classifier": "runtime.classifier",
    "Classes": "runtime.classifier",
    "Detections": "runtime.detections",
    "Detector": "runtime.detector",
    "model_zoo": "model_zoo",
    "keep_freed_memory": "memory",
    # what compresses any torch module
    "Result": "compress",
    "Task": "compress",
    "TorchvisionDetectionTask": "compress.torchvision_task",
    "compress_": "api",
    # detectron2's configs and models; importing any of their homes fills its registries
    "DetectionTask": "detection.task",
    "Predictor": "detection.predictor",
    "add_sparsedet_config": "config",
    "export": "exporting.api",
    "load_config": "detection.config",
    "load_model": "detection.load",
    "optimize_for_inference": "exporting.optimize",
    # what is registered there
    "SparseRPNHead": "modeling",
    "SparsifiedModel": "modeling",
    "VGGBoxHead": "modeling",
    "build_sparse_resnet_backbone": "modeling",
    "build_sparse_resnet_fpn_backbone": "modeling",
    "build_sparse_vgg_backbone": "modeling",
    "build_sparse_vgg_fpn_backbone": "modeling",
    "build_vgg_backbone": "modeling",
    "build_vgg_fpn_backbone": "modeling",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    value = globals()[name] = home if name == _HOMES[name] else getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
