"""LVIS's own metrics on LVIS's own data sets, by its library."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.evaluation import LVISEvaluator

from ..compat import with_old_numpy_names
from ..data.class_order import dataset_classes
from ..errors import InputError
from ..extras import require


def build_lvis_evaluator(
    cfg: CfgNode, dataset: str, output_folder: str, class_names: Sequence[str] | None
) -> LVISEvaluator:
    """AP of boxes ("bbox") and, with MODEL.MASK_ON, of masks ("segm"), in percent.

    Raises:
        InputError: the library is missing, or classes are in another order than LVIS's.
    """
    library = require("lvis", f"evaluation on {dataset}")
    with_old_numpy_names(library.eval)
    if class_names and list(class_names) != dataset_classes(dataset):
        raise InputError(f"the model's classes are not those of {dataset}, in LVIS's order")
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    return LVISEvaluator(dataset, tasks, output_dir=output_folder)
