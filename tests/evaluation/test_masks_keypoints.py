"""Masks, keypoints and proposals against detectron2's own evaluator, which needs a json."""

import json

import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from sparsedet.data.coco import load_coco
from sparsedet.errors import InputError
from sparsedet.evaluation import build_evaluator

NAME, SIGMAS = "figures_test", [0.05, 0.08, 0.1]
WIDTH, HEIGHT, IMAGES = 120, 100, 12


def content(rng):
    """Triangles with their corners as keypoints, one crowd in RLE and one without labelled ones."""
    annotations = []
    for image in range(1, IMAGES + 1):
        for _ in range(rng.integers(1, 4)):
            corner = rng.integers(0, (WIDTH - 70, HEIGHT - 70))
            x, y = corner
            width, height = rng.integers(8, 70, 2)
            points = corner + np.array([(0, height), (width, height), (rng.integers(width), 0)])
            annotations.append(
                {
                    "image_id": image,
                    "category_id": int(rng.choice([3, 7])),
                    "bbox": [int(v) for v in (x, y, width, height)],
                    "area": float(width * height / 2),
                    "iscrowd": 0,
                    "segmentation": [points.flatten().astype(float).tolist()],
                    "keypoints": np.c_[points, [2, 2, rng.integers(0, 3)]].flatten().tolist(),
                    "num_keypoints": 3,
                }
            )
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[10:50, 20:60] = 1
    rle = pycocotools.mask.encode(mask)
    rle["counts"] = rle["counts"].decode()
    annotations[0].update(segmentation=rle, iscrowd=1, bbox=[20, 10, 40, 40], area=1600.0)
    annotations[1].update(keypoints=[0] * 9, num_keypoints=0)
    for number, row in enumerate(annotations, start=1):
        row["id"] = number
        row["num_keypoints"] = sum(v > 0 for v in row["keypoints"][2::3])
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(1, IMAGES + 1)
        ],
        "categories": [{"id": 3, "name": "kite"}, {"id": 7, "name": "sail"}],
        "annotations": annotations,
    }


def found(rng, image):
    """Moved copies of an image's objects, some twice, in another class at times."""
    rows = [row for row in image["annotations"] for _ in range(2) if rng.random() < 0.8]
    masks, boxes, keypoints, classes = [], [], [], []
    for row in rows:
        x, y = rng.integers(-4, 5, 2)
        segmentation = row["segmentation"]
        if isinstance(segmentation, list):
            segmentation = pycocotools.mask.merge(
                pycocotools.mask.frPyObjects(segmentation, HEIGHT, WIDTH)
            )
        mask = np.roll(pycocotools.mask.decode(segmentation), (y, x), (0, 1)).astype(bool)
        masks.append(torch.tensor(mask))
        boxes.append(np.array(row["bbox"]) + (x, y, x, y))
        moved = np.array(row["keypoints"]).reshape(3, 3) + rng.normal(0, 3, (3, 3))
        keypoints.append(torch.tensor(moved, dtype=torch.float32))
        classes.append(row["category_id"] if rng.random() < 0.9 else 1 - row["category_id"])
    instances = Instances((HEIGHT, WIDTH))
    count = len(rows)
    instances.pred_boxes = Boxes(torch.tensor(np.reshape(boxes, (count, 4)), dtype=torch.float32))
    instances.scores = torch.tensor(rng.random(count), dtype=torch.float32)
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    instances.pred_masks = torch.stack(masks) if masks else torch.zeros(0, HEIGHT, WIDTH) > 0
    instances.pred_keypoints = torch.stack(keypoints) if keypoints else torch.zeros(0, 3, 3)
    return instances


@pytest.fixture
def figures(tmp_path):
    """Register the json; its dicts."""
    path = tmp_path / "figures.json"
    rows = content(np.random.default_rng(0))
    path.write_text(json.dumps(rows))
    for image in rows["images"]:
        (tmp_path / image["file_name"]).touch()
    DatasetCatalog.register(NAME, lambda: load_coco(str(path), str(tmp_path), NAME))
    metadata = MetadataCatalog.get(NAME).set(json_file=str(path), evaluator_type="coco")
    yield DatasetCatalog.get(NAME)
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(metadata.name)


def config(folder, **keys):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(folder)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = SIGMAS
    for key, value in keys.items():
        cfg.MODEL[key] = value
    return cfg


def run(evaluator, dicts, outputs):
    evaluator.reset()
    for image, output in zip(dicts, outputs):
        evaluator.process([image], [output])
    return evaluator.evaluate()


@pytest.mark.parametrize("seed", range(2))
def test_equals_the_official_numbers(figures, tmp_path, seed):
    rng = np.random.default_rng(seed)
    outputs = [{"instances": found(rng, image)} for image in figures]
    ours = build_evaluator(config(tmp_path, MASK_ON=True, KEYPOINT_ON=True), NAME)
    result = run(ours, figures, outputs)
    official = COCOEvaluator(
        NAME, ("bbox", "segm", "keypoints"), False, use_fast_impl=False, kpt_oks_sigmas=SIGMAS
    )
    expected = run(official, figures, outputs)  # last: it moves the keypoints that it gets
    assert set(result) == {"bbox", "voc", "segm", "keypoints"}
    for task, metrics in expected.items():
        assert 5 < metrics["AP"] < 95
        assert result[task] == pytest.approx(metrics, nan_ok=True)


def test_a_perfect_detector_gets_100_whatever_the_order_of_its_classes(figures, tmp_path):
    outputs = []
    for image in figures:
        rows = [row for row in image["annotations"] if not row["iscrowd"]]
        instances = Instances((HEIGHT, WIDTH))
        instances.pred_boxes = Boxes(torch.tensor([row["bbox"] for row in rows]).reshape(-1, 4))
        instances.scores = torch.ones(len(rows))
        instances.pred_classes = torch.tensor([1 - row["category_id"] for row in rows]).long()
        polygons = [
            pycocotools.mask.merge(pycocotools.mask.frPyObjects(row["segmentation"], HEIGHT, WIDTH))
            for row in rows
        ]
        decoded = [
            torch.tensor(np.asarray(pycocotools.mask.decode(rle))).bool() for rle in polygons
        ]
        instances.pred_masks = torch.stack(decoded) if rows else torch.zeros(0, HEIGHT, WIDTH) > 0
        outputs.append({"instances": instances})
    cfg = config(tmp_path, MASK_ON=True)
    result = run(build_evaluator(cfg, NAME, None, ["sail", "kite"]), figures, outputs)
    assert result["segm"]["AP"] == 100 and result["segm"]["AP-kite"] == 100
    saved = json.loads((tmp_path / "inference" / "coco_segm_results.json").read_text())
    assert {row["category_id"] for row in saved} == {3, 7}
    assert pycocotools.mask.area(saved[0]["segmentation"]) > 0


def test_an_object_without_a_mask_counts_neither_way(figures, tmp_path):
    """Whether a detector finds it or not."""
    rows = [dict(row) for image in figures for row in image["annotations"]]
    results = []
    for finds in (False, True):
        dicts, outputs = [], []
        for image in figures:
            objects = [{**row, "iscrowd": 0} for row in image["annotations"]]
            instances = found(np.random.default_rng(0), {"annotations": image["annotations"]})
            objects[0].pop("segmentation")
            x0, y0, x1, y1 = map(int, objects[0]["bbox"])
            box = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
            box[:, y0:y1, x0:x1] = True
            if finds:
                one = Instances((HEIGHT, WIDTH))
                one.pred_boxes = Boxes(torch.tensor([[x0, y0, x1, y1]]).float())
                one.scores, one.pred_masks = torch.ones(1), box
                one.pred_classes = torch.tensor([objects[0]["category_id"]])
                instances.remove("pred_keypoints")
                instances = Instances.cat([one, instances])
            dicts.append({**image, "annotations": objects})
            outputs.append({"instances": instances})
        DatasetCatalog.remove(NAME)
        DatasetCatalog.register(NAME, lambda dicts=dicts: dicts)
        evaluator = build_evaluator(config(tmp_path, MASK_ON=True), NAME)
        results.append(run(evaluator, dicts, outputs)["segm"]["AP"])
    assert len(rows) > IMAGES
    assert results[0] == results[1] > 0


def test_proposals_as_detectron2_has_it(figures, tmp_path):
    rng = np.random.default_rng(0)
    cfg = config(tmp_path, META_ARCHITECTURE="ProposalNetwork")
    outputs = []
    for image in figures:
        near = [np.array(row["bbox"]) + rng.normal(0, 4, 4) for row in image["annotations"]]
        proposals = Instances((HEIGHT, WIDTH))
        proposals.proposal_boxes = Boxes(torch.tensor(np.array(near), dtype=torch.float32))
        proposals.objectness_logits = torch.tensor(rng.random(len(near)))
        outputs.append({"proposals": proposals})
    result = run(build_evaluator(cfg, NAME), figures, outputs)
    expected = run(COCOEvaluator(NAME, ("box_proposals",), False), figures, outputs)
    assert 20 < result["box_proposals"]["AR@100"] < 95
    assert result["box_proposals"] == pytest.approx(expected["box_proposals"], nan_ok=True)


def test_what_the_data_lacks_is_said(figures, tmp_path, caplog):
    bare = [
        {
            **image,
            "annotations": [
                {k: v for k, v in row.items() if k not in ("segmentation", "keypoints")}
                for row in image["annotations"]
            ],
        }
        for image in figures
    ]
    DatasetCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: bare)
    cfg = config(tmp_path, MASK_ON=True, KEYPOINT_ON=True)
    outputs = [{"instances": found(np.random.default_rng(0), image)} for image in figures]
    assert set(run(build_evaluator(cfg, NAME), bare, outputs)) == {"bbox", "voc"}
    assert f"segm is not evaluated: the objects of {NAME} have no masks" in caplog.text
    assert f"keypoints is not evaluated: the objects of {NAME} have no keypoints" in caplog.text
    with pytest.raises(InputError, match="sem_seg is not evaluated: .* have no semantic labels"):
        build_evaluator(config(tmp_path, META_ARCHITECTURE="SemanticSegmentor"), NAME)


def test_sigmas_and_keypoints_must_agree(figures, tmp_path):
    cfg = config(tmp_path, KEYPOINT_ON=True)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = []
    with pytest.raises(InputError, match="OKS_SIGMAS: 17 of them, but .* have 3 keypoints"):
        build_evaluator(cfg, NAME)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = SIGMAS
    instances = found(np.random.default_rng(0), figures[0])
    instances.pred_keypoints = instances.pred_keypoints[:, :2]
    with pytest.raises(InputError, match="NUM_KEYPOINTS is 2, but .* have 3"):
        build_evaluator(cfg, NAME).process(figures[:1], [{"instances": instances}])
    instances.remove("pred_keypoints")
    with pytest.raises(InputError, match="the model gives no pred_keypoints, but pred_boxes"):
        build_evaluator(cfg, NAME).process(figures[:1], [{"instances": instances}])


def test_lvis_needs_its_library(figures, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lvis", None)
    DatasetCatalog.register("lvis_like", lambda: figures)
    MetadataCatalog.get("lvis_like").set(evaluator_type="lvis", thing_classes=["kite", "sail"])
    try:
        with pytest.raises(InputError, match=r"evaluation on lvis_like needs lvis: pip install"):
            build_evaluator(config(tmp_path), "lvis_like")
    finally:
        DatasetCatalog.remove("lvis_like")
        MetadataCatalog.remove("lvis_like")
