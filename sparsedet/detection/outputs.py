"""What a detectron2 model gives of an image, in the form of the runtime's answers, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

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


def from_detections(
    found: Detections, kinds: Collection[str], size: tuple[int, int]
) -> dict[str, Any]:
    """What detectron2's evaluators read of an image of ``size``, height and width.

    Args:
        kinds: what the model gives, as of :func:`to_detections`. Of "sem_seg", which are scores, a
            map of classes keeps no more than which is the best; of "proposals", their order.
    """
    outputs: dict[str, Any] = {}
    if "instances" in kinds:
        outputs["instances"] = _to_instances(found, size)
    if "proposals" in kinds:
        boxes = Boxes(torch.as_tensor(found.boxes))
        ranks = -torch.arange(len(found), dtype=torch.float32)  # a sigmoid has ties near 1
        outputs["proposals"] = Instances(size, proposal_boxes=boxes, objectness_logits=ranks)
    if "sem_seg" in kinds:
        classes = torch.as_tensor(found.semantic.astype(np.int16))
        numbers = torch.arange(len(found.labels.stuff_names))[:, None, None]
        outputs["sem_seg"] = (numbers == classes).byte()
    if "panoptic_seg" in kinds:
        segments = [asdict(segment) for segment in found.panoptic.segments]
        outputs["panoptic_seg"] = torch.as_tensor(found.panoptic.ids), segments
    return outputs


def _to_instances(found: Detections, size: tuple[int, int]) -> Instances:
    instances = Instances(
        size,
        pred_boxes=Boxes(torch.as_tensor(found.boxes)),
        scores=torch.as_tensor(found.scores),
        pred_classes=torch.as_tensor(found.classes),
    )
    if found.masks is not None:
        masks = np.asarray(found.masks, dtype=bool).reshape(-1, *size)
        instances.pred_masks = torch.as_tensor(masks)
    if found.keypoints is not None:
        instances.pred_keypoints = torch.as_tensor(found.keypoints)
    return instances
