"""Datasets: registration from the config, checked loading, and the generated demo set."""

from .coco import load_coco
from .mapper import CheckedDatasetMapper
from .register import register_datasets
from .shapes import SHAPE_CLASSES, generate_shapes
from .voc import load_voc

__all__ = [
    "SHAPE_CLASSES",
    "CheckedDatasetMapper",
    "generate_shapes",
    "load_coco",
    "load_voc",
    "register_datasets",
]
