"""Every kind of detectron2 model, exported, gives in each engine what the model itself gives."""

import numpy as np
import pytest
import torch
from detectron2.modeling import GeneralizedRCNN, build_model
from exporting.kinds import KEYPOINTS, KINDS, NAMES, STUFF, picture, small_config, small_model
from PIL import Image

from sparsedet.detection.labels import model_labels
from sparsedet.detection.outputs import to_detections
from sparsedet.detection.predictor import Predictor
from sparsedet.errors import InputError
from sparsedet.exporting.api import export
from sparsedet.exporting.compare import beyond_limits, compare
from sparsedet.exporting.evaluate import compare_with_pytorch
from sparsedet.exporting.exporter import export_graph
from sparsedet.exporting.graph import DetectionGraph
from sparsedet.exporting.optimize import optimize_for_inference
from sparsedet.runtime.detector import Detector
from sparsedet.runtime.model_info import BOXES

SIZES = [(96, 128), (53, 90), (200, 70), (300, 410)]
MORE = {"mask": ["masks"], "keypoint": ["keypoint_maps"], "cascade": ["masks"]}
MAPS = {"panoptic": [*BOXES, "masks", "semantic"], "semantic": ["semantic"]}


class Kind:
    """A model, its predictor and its files, made once."""

    def __init__(self, kind, folder, *opts, sparse=False):
        self.model = small_model(kind, *opts, sparse=sparse)
        self.names = {"rpn": ["object"], "sem": []}.get(kind[:3], NAMES)
        self.labels = model_labels(self.model.cfg, self.model, self.names)
        self.predictor = Predictor.of(self.model)
        self.folder = folder

    def export(self, suffix):
        path = self.folder / f"model{suffix}"
        if not path.exists():
            export_graph(
                self.model, str(path), class_names=self.names, min_size=96, max_size=144,
                input_format="BGR", labels=self.labels,
            )  # fmt: skip
        return path


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    return Kind(request.param, tmp_path_factory.mktemp("kind"))


def check_parity(kind, detector):
    found_any = 0
    for seed, size in enumerate(SIZES):
        image = picture(*size, seed)
        expected, found = kind.predictor.detect(image, kind.names), detector(image)
        apart = compare_with_pytorch(kind.model.cfg, expected, found)
        assert beyond_limits(apart) == "", (size, apart)
        assert (np.diff(found.scores) <= 0).all()
        found_any += found.summary()[0]
    assert found_any


def test_it_gives_what_the_model_gives_at_any_size(kind, request):
    name = request.node.callspec.params["kind"]
    detector = Detector(kind.export(".onnx"), threads=1)
    outputs = MAPS.get(name, [*BOXES, *MORE.get(name.partition(" ")[0], [])])
    assert detector.info.outputs == outputs
    check_parity(kind, detector)


def test_openvino_gives_the_same(kind):
    pytest.importorskip("openvino")
    check_parity(kind, Detector(kind.export(".onnx"), "openvino", threads=1))


@pytest.mark.parametrize(
    "name", ["mask fpn", "mask c4", "keypoint", "cascade", "retinanet", "fcos", "panoptic"]
)
def test_none_or_one_in_turn(name, tmp_path):
    """With a threshold that the best of half of the images exceed, and one detection at most."""
    kind = Kind(name, tmp_path)
    images = [picture(96, 128, seed) for seed in range(6)]
    best = sorted(kind.predictor.detect(image, NAMES).scores[:1].sum() for image in images)
    limit_detections(kind.model, float(best[2] + best[3]) / 2)
    path = kind.export(".onnx")
    for engine in ("onnxruntime", "openvino"):
        detector = Detector(path, engine, threads=1)
        counts = []
        for image in images:
            expected, found = kind.predictor.detect(image, NAMES), detector(image)
            assert beyond_limits(compare(expected, found)) == ""
            counts.append(len(found))
        assert sorted(counts) == [0, 0, 0, 1, 1, 1]
    empty = detector(images[counts.index(0)])
    assert empty.boxes.shape == (0, 4) and empty.names == []
    assert empty.masks is None or np.asarray(empty.masks).shape == (0, 96, 128)
    assert empty.keypoints is None or empty.keypoints.shape == (0, len(KEYPOINTS), 3)


def limit_detections(model, threshold):
    if isinstance(model, GeneralizedRCNN):
        predictor = model.roi_heads.box_predictor
        for part in predictor if isinstance(predictor, torch.nn.ModuleList) else [predictor]:
            part.test_score_thresh, part.test_topk_per_image = threshold, 1
    else:
        model.test_score_thresh, model.max_detections_per_image = threshold, 1


def test_the_optimized_copy_gives_the_same(kind):
    image = picture(96, 128)
    fast = optimize_for_inference(kind.model)
    inputs = [
        {"image": torch.from_numpy(image.transpose(2, 0, 1).copy()), "height": 60, "width": 80}
    ]
    with torch.no_grad():
        answers = [
            to_detections(model(inputs)[0], kind.names, kind.labels) for model in (kind.model, fast)
        ]
    assert beyond_limits(compare_with_pytorch(kind.model.cfg, *answers)) == ""


def test_box_heads_of_a_cascade_run_in_half_precision():
    model = small_model("cascade")
    inputs = [{"image": torch.from_numpy(picture(96, 128).transpose(2, 0, 1).copy())}]
    fast = optimize_for_inference(model, torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 for p in fast.roi_heads.box_head.parameters())
    with torch.no_grad():
        found, expected = (m(inputs)[0]["instances"].scores for m in (fast, model))
    assert len(found) == len(expected) and (found - expected).abs().max() < 0.1


@pytest.mark.parametrize("name", ["mask fpn", "keypoint", "cascade", "retinanet", "panoptic"])
def test_compact_models(name, tmp_path):
    compact = Kind(name, tmp_path, sparse=True)
    assert any(type(m).__name__ == "SparseFusionConv2d" for m in compact.model.modules())
    check_parity(compact, Detector(compact.export(".onnx"), threads=1))


GROUPS = ["MODEL.RESNETS.NUM_GROUPS", 4, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]


@pytest.mark.parametrize(
    "name, opts",
    [
        ("mask fpn", [*GROUPS, "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True]),
        (
            "mask c4",
            ["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.ROI_HEADS.NUM_CLASSES", 1],
        ),
        ("retinanet", ["MODEL.RETINANET.NORM", "BN", "MODEL.ANCHOR_GENERATOR.OFFSET", 0.5]),
    ],
    ids=["for all classes in common", "the first RoIAlign", "norms of their own"],
)
def test_variants(name, opts, tmp_path):
    kind = Kind(name, tmp_path, *opts)
    check_parity(kind, Detector(kind.export(".onnx"), threads=1))


def test_names_and_colours_travel(tmp_path):
    info = Detector(Kind("keypoint", tmp_path).export("-keypoint.onnx")).info
    assert info.class_names == NAMES and info.labels.class_colors[0] == [220, 20, 60]
    assert info.labels.keypoint_names == KEYPOINTS
    assert info.labels.skeleton == [[0, 1], [2, 3]]
    assert info.labels.skeleton_colors == [[255, 0, 0], [0, 0, 255]]
    info = Detector(Kind("panoptic", tmp_path).export(".onnx")).info
    assert info.labels.stuff_names == STUFF and info.labels.stuff_colors[1] == [150, 90, 40]
    assert info.semantic_stride == 4
    assert info.panoptic == {"overlap": 0.5, "area": 200, "score": 0.5}


@pytest.mark.parametrize(
    "name, opts, message",
    [
        (
            "mask fpn",
            ["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"],
            "a model with precomputed proposals cannot be exported",
        ),
        (
            "faster fpn",
            ["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"],
            "only ROIAlign and ROIAlignV2",
        ),
        ("mask fpn", ["MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIPool"], "MODEL.ROI_MASK_HEAD.POOLER"),
        (
            "faster fpn",
            ["TEST.DETECTIONS_PER_IMAGE", -1],
            "DETECTIONS_PER_IMAGE must be at least 1",
        ),
        ("retinanet", ["TEST.DETECTIONS_PER_IMAGE", 0], "DETECTIONS_PER_IMAGE must be at least 1"),
    ],
)
def test_what_cannot_be_exported_is_named(name, opts, message, tmp_path):
    model = build_model(small_config(name, *opts))
    with pytest.raises(InputError, match=message) as caught:
        export_graph(model, str(tmp_path / "m.onnx"), class_names=NAMES, min_size=96, max_size=144)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["", "proposal_generator", "roi_heads", "roi_heads.box_predictor"])
def test_parts_of_unknown_kinds_are_named(part):
    model = build_model(small_config("mask fpn"))
    changed = model.get_submodule(part)
    changed.__class__ = type("Another", (type(changed),), {})
    with pytest.raises(InputError, match="a Another cannot be exported: the "):
        DetectionGraph(model)


def test_a_file_that_differs_is_refused(tmp_path, monkeypatch):
    """Masks of another class than the box's, which the boxes do not tell."""
    kind = Kind("mask fpn", tmp_path)
    kind.model.class_names = NAMES
    layers = kind.model.roi_heads.mask_head.layers
    tracing = torch.jit.is_tracing
    monkeypatch.setattr(
        kind.model.roi_heads.mask_head,
        "layers",
        lambda x: layers(x).roll(1, dims=1) if tracing() else layers(x),
    )
    with pytest.raises(InputError, match=r"differs from the model in masks \("):
        export(kind.model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_eight_bits(tmp_path):
    """They compute trunk and heads, and find nearly the same."""
    for i in range(3):
        Image.fromarray(picture(96, 128, i)).save(tmp_path / f"{i}.png")
    kind = Kind("panoptic", tmp_path)
    kind.model.class_names = NAMES
    export(kind.model, tmp_path / "m.onnx", precision="int8", images=tmp_path)
    found = Detector(tmp_path / "m.onnx", threads=1)(picture(96, 128))
    expected = kind.predictor.detect(picture(96, 128), NAMES)
    apart = compare(expected, found)
    assert apart.matched > len(expected) / 2 and apart.semantic < 0.2
