"""What a dataset says of stuff, keypoints and colours is what a model's answers are named by."""

from types import SimpleNamespace

import pytest
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog

from sparsedet.detection.labels import model_labels
from sparsedet.errors import InputError
from sparsedet.runtime.labels import Labels


def model(stuff=0, keypoints=0):
    head = SimpleNamespace(predictor=SimpleNamespace(out_channels=stuff)) if stuff else None
    heads = SimpleNamespace(keypoint_head=SimpleNamespace(num_keypoints=keypoints))
    return SimpleNamespace(sem_seg_head=head, roi_heads=heads if keypoints else None)


def config(*datasets):
    cfg = get_cfg()
    cfg.DATASETS.TEST = datasets
    return cfg


def test_coco_s_own():
    people = config("keypoints_coco_2017_val")
    labels = model_labels(people, model(keypoints=17), ["person"])
    assert labels.keypoint_names[:2] == ["nose", "left_eye"]
    assert [16, 14] in labels.skeleton or [14, 16] in labels.skeleton  # ankle and knee
    assert len(labels.skeleton) == len(labels.skeleton_colors) > 10
    everything = config("coco_2017_val_panoptic_separated")
    names = MetadataCatalog.get("coco_2017_val_panoptic_separated").thing_classes
    labels = model_labels(everything, model(stuff=54), names)
    assert labels.stuff_names[0] == "things" and len(labels.stuff_colors) == 54
    labels.check()


def test_colours_follow_the_names_of_the_model():
    name = "labels_test_colours"
    MetadataCatalog.get(name).set(thing_classes=["a", "b"], thing_colors=[(1, 1, 1), (2, 2, 2)])
    assert model_labels(config(name), model(), ["b", "a"]).class_colors == [[2] * 3, [1] * 3]
    assert model_labels(config(name), model(), ["b", "c"]).class_colors == []


def test_what_nobody_names_has_numbers():
    labels = model_labels(config(), model(2, 2), ["a"])
    assert labels.stuff_names == ["stuff class 0", "stuff class 1"]
    assert labels.keypoint_names == ["keypoint 0", "keypoint 1"] and labels.skeleton == []
    assert model_labels(config(), model(), ["a"]) == Labels()


def test_other_numbers_than_the_dataset_s():
    people = config("keypoints_coco_2017_val")
    with pytest.raises(InputError, match="NUM_KEYPOINTS is 5, but dataset keypoints_coco.* 17 key"):
        model_labels(people, model(keypoints=5), ["person"])
    everything = config("coco_2017_val_panoptic_separated")
    with pytest.raises(InputError, match="SEM_SEG_HEAD.NUM_CLASSES is 9, but dataset .* 54 stuff"):
        model_labels(everything, model(stuff=9), ["person"])
