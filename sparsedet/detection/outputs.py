"""What a detectron2 model gives of an image, in the form of the runtime's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from detectron2.structures import Instances

from ..runtime.detections import Detections
from ..runtime.labels import Labels
from ..runtime.panoptic import panoptic


def to_detections(outputs: Mapping[str, Any], names: Sequence[str], labels: Labels) -> Detections:
    """From "instances", "proposals", "sem_seg" and "panoptic_seg", whichever are there.

    A proposal is a detection of the first of ``names``; its score is the sigmoid of its objectness
    logit.
    """
    if "instances" in outputs:
        found = _of_instances(outputs["instances"].to("cpu"), names)
    elif "proposals" in outputs:
        found = _of_proposals(outputs["proposals"].to("cpu"), names)
    else:
        found = Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), []
        )
    found = replace(found, labels=labels)
    if "sem_seg" in outputs:
        found = replace(found, semantic=outputs["sem_seg"].argmax(dim=0).cpu().numpy())
    if "panoptic_seg" in outputs:
        ids, segments = outputs["panoptic_seg"]
        kinds = [(segment["category_id"], segment["isthing"]) for segment in segments]
        segments = panoptic(ids.cpu().numpy(), kinds, names, labels.stuff_names)
        found = replace(found, panoptic=segments)
    return found


def _of_instances(found: Instances, names: Sequence[str]) -> Detections:
    found = found[found.scores.argsort(descending=True)]
    classes = found.pred_classes.numpy()
    return Detections(
        found.pred_boxes.tensor.numpy(),
        found.scores.numpy(),
        classes,
        [names[c] for c in classes],
        found.pred_masks.numpy() if found.has("pred_masks") else None,
        found.pred_keypoints.numpy() if found.has("pred_keypoints") else None,
    )


def _of_proposals(found: Instances, names: Sequence[str]) -> Detections:
    scores = found.objectness_logits.sigmoid().numpy()
    classes = np.zeros(len(scores), np.int64)
    boxes = found.proposal_boxes.tensor.numpy()
    return Detections(boxes, scores, classes, [names[0]] * len(scores))
