"""Exported detectors give what detectron2 gives, for any size after any other, and when empty."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from detectron2.engine import DefaultPredictor
from PIL import Image

from sparsedet import __version__
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError
from sparsedet.exporting.compare import Difference, compare
from sparsedet.exporting.exporter import export_graph, replacing_files
from sparsedet.runtime.detector import Detections, Detector

SHAPES = Path(__file__).parents[2] / "configs" / "Shapes-Detection"
NAMES = ["circle", "square", "triangle", "star", "ring", "cross"]
LEVELS, PYRAMID = ["conv3", "conv4", "conv5", "pool5"], ["p2", "p3", "p4", "p5", "p6"]
FPN = [
    *("MODEL.BACKBONE.NAME", "build_sparse_vgg_fpn_backbone", "MODEL.FPN.OUT_CHANNELS", 16),
    *("MODEL.VGG.OUT_FEATURES", LEVELS, "MODEL.FPN.IN_FEATURES", LEVELS),
    *("MODEL.RPN.IN_FEATURES", PYRAMID, "MODEL.ROI_HEADS.IN_FEATURES", PYRAMID[:4]),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64], [128], [256]]),
    *("INPUT.FORMAT", "RGB", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
]
SIZES = [(192, 250), (97, 131), (400, 60), (33, 47), (192, 250)]


class Reference(DefaultPredictor):
    """detectron2's own inference, with random weights that detect."""

    def __init__(self, config, *opts):
        cfg = load_config(str(SHAPES / config), ["MODEL.DEVICE", "cpu", *opts])
        torch.manual_seed(0)
        super().__init__(cfg)
        heads, rpn = self.model.roi_heads.box_predictor, self.model.proposal_generator.rpn_head
        for layer, deviation in (
            (rpn.objectness_logits, 1), (rpn.anchor_deltas, 0.5),
            (heads.cls_score, 2), (heads.bbox_pred, 1),
        ):  # fmt: skip
            self._scale(layer, deviation)

    def _scale(self, layer, deviation):
        """Scale the layer so that its outputs have this standard deviation."""
        outputs = []
        hook = layer.register_forward_hook(lambda module, args, output: outputs.append(output))
        self(picture(192, 256))
        hook.remove()
        layer.weight.data *= deviation / torch.cat([y.flatten() for y in outputs]).std()

    def detect(self, image):
        found = self(image)["instances"]
        classes = found.pred_classes.numpy()
        names = [NAMES[c] for c in classes]
        return Detections(found.pred_boxes.tensor.numpy(), found.scores.numpy(), classes, names)

    def export(self, path, **kwargs):
        sizes = {"min_size": self.cfg.INPUT.MIN_SIZE_TEST, "max_size": self.cfg.INPUT.MAX_SIZE_TEST}
        export_graph(self.model, str(path), class_names=NAMES, **sizes, **kwargs)
        return path


@pytest.fixture(scope="module")
def sparse():
    return Reference("faster_rcnn_VGG_11_sparse.yaml")


@pytest.fixture(scope="module")
def exported(sparse, tmp_path_factory):
    return sparse.export(tmp_path_factory.mktemp("exported") / "model.onnx")


def picture(height, width, seed=0):
    """Smooth colours, (height, width, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def assert_same(expected, found):
    # Among the worst of many, rounding may let one or the other through.
    floor = expected.scores.min() + 0.001 if len(expected) == 100 else 0
    apart = compare(expected, found, floor)
    assert apart.unmatched == 0 and apart.pixels < 0.5 and apart.score < 0.001
    assert (np.diff(found.scores) <= 0).all()
    assert found.names == [NAMES[c] for c in found.classes]


def check_parity(reference, detector):
    for seed, size in enumerate(SIZES):
        image = picture(*size, seed)
        expected = reference.detect(image)
        assert len(expected) > 0, size
        assert_same(expected, detector(image))


def test_sparse_detector(sparse, exported):
    check_parity(sparse, Detector(exported, threads=1))


def test_dense_pyramid_in_rgb_with_boxes_for_all_classes_in_common(tmp_path):
    reference = Reference("faster_rcnn_VGG_11.yaml", *FPN)
    detector = Detector(reference.export(tmp_path / "model.onnx"), threads=1)
    assert detector.info.format == "RGB"
    check_parity(reference, detector)


def test_openvino(sparse, exported, tmp_path):
    pytest.importorskip("openvino")
    check_parity(sparse, Detector(exported, "openvino", threads=1))
    check_parity(sparse, Detector(sparse.export(tmp_path / "m.xml"), "openvino", threads=1))


def test_images_with_and_without_detections_in_turn(sparse, tmp_path, monkeypatch):
    images = [picture(96, 128, seed) for seed in range(6)]
    best = sorted(sparse.detect(image).scores[0] for image in images)
    threshold = float(best[2] + best[3]) / 2
    monkeypatch.setattr(sparse.model.roi_heads.box_predictor, "test_score_thresh", threshold)
    detector = Detector(sparse.export(tmp_path / "model.onnx"), threads=1)
    counts = []
    for image in images:
        found = detector(image)
        assert_same(sparse.detect(image), found)
        counts.append(len(found))
    assert counts.count(0) == 3
    empty = detector(images[counts.index(0)])
    assert (empty.boxes.shape, empty.scores.shape, empty.names) == ((0, 4), (0,), [])


def test_no_proposals(sparse, tmp_path, monkeypatch):
    monkeypatch.setattr(sparse.model.proposal_generator, "min_box_size", 1e6)
    detector = Detector(sparse.export(tmp_path / "model.onnx"), threads=1)
    assert len(detector(picture(50, 70))) == len(sparse.detect(picture(50, 70))) == 0


def test_metadata(exported):
    info = Detector(exported).info
    assert info.class_names == NAMES and info.version == __version__
    assert (info.format, info.min_size, info.max_size) == ("BGR", 192, 256)
    assert (info.smallest_side, info.score_threshold, info.precision) == (8, 0.05, "f32")


@pytest.fixture(scope="module")
def reduced(sparse, tmp_path_factory):
    """Exported files in other precisions."""
    folder = tmp_path_factory.mktemp("reduced")
    for i in range(4):
        Image.fromarray(picture(96, 128, i)).save(folder / f"{i}.png")
    (folder / "bad.png").write_text("no image")
    images = [str(folder / name) for name in ("bad.png", "0.png", "1.png", "2.png", "3.png")]
    return {
        precision: sparse.export(folder / f"{precision}.onnx", precision=precision, images=images)
        for precision in ("f16", "int8")
    }


@pytest.mark.parametrize(
    "precision, bytes_per_weight, matched", [("f16", 2, 0.95), ("int8", 1, 0.75)]
)
def test_smaller_and_near(sparse, exported, reduced, precision, bytes_per_weight, matched):
    weights = sum(p.numel() for p in sparse.model.parameters())
    smaller = exported.stat().st_size - weights * (3.8 - bytes_per_weight)
    assert reduced[precision].stat().st_size < smaller
    detector = Detector(reduced[precision], threads=1)
    assert detector.info.precision == precision
    image = picture(96, 128)
    expected, found = sparse.detect(image), detector(image)
    assert compare(expected, found).matched > matched * len(expected)


def test_eight_bits_are_rounded_once(reduced):
    graph = onnx.load(reduced["int8"]).graph
    assert not any(n.op_type == "Relu" and n.name.startswith("/backbone/") for n in graph.node)
    scales = {n.output[0]: n.input[1:] for n in graph.node if n.op_type == "DequantizeLinear"}
    given = {n.input[0]: n.input[1:] for n in graph.node if n.op_type == "QuantizeLinear"}
    fused = [n for n in graph.node if n.op_type == "Concat" and n.name.startswith("/backbone/")]
    assert len(fused) == 5
    for concat in fused:
        assert all(scales[name] == given[concat.output[0]] for name in concat.input)


def test_eight_bits_need_images(sparse, tmp_path):
    with pytest.raises(InputError, match="none could be used"):
        sparse.export(tmp_path / "model.onnx", precision="int8", images=["gone.jpg"])
    assert not (tmp_path / "model.onnx").exists()


def test_an_operator_without_onnx_form_is_named(tmp_path, monkeypatch):
    reference = Reference("faster_rcnn_VGG_11.yaml")
    activation = torch.special.bessel_j0
    monkeypatch.setattr(reference.model.backbone.conv2_1, "activation", activation)
    with pytest.raises(InputError, match="cannot be exported: .*bessel_j0") as caught:
        reference.export(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_files_are_replaced_together_or_not_at_all(tmp_path):
    path = str(tmp_path / "model.xml")
    for text in ("old", "new"):
        with replacing_files(path) as temporary:
            for name in (temporary, temporary.replace(".xml", ".bin")):
                Path(name).write_text(text)
    with pytest.raises(KeyError), replacing_files(path) as temporary:
        Path(temporary).write_text("half")
        raise KeyError
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "model.xml": "new",
        "model.bin": "new",
    }
    with pytest.raises(InputError, match="gone/model.xml: cannot be written: No such file"):
        with replacing_files(str(tmp_path / "gone" / "model.xml")):
            pass


def test_compare_counts_what_has_no_counterpart():
    boxes = np.float32([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
    a = Detections(boxes, np.float32([0.9, 0.8, 0.3]), np.array([0, 1, 1]), [])
    b = Detections(boxes + 0.25, np.float32([0.85, 0.8, 0.3]), np.array([0, 1, 0]), [])
    assert compare(a, a) == Difference(3, 0, 0, 0)
    assert compare(a, b) == Difference(2, 2, 0.25, pytest.approx(0.05))
    assert compare(a, b, floor=0.3).unmatched == 0
    none = Detections(boxes[:0], a.scores[:0], a.classes[:0], [])
    assert compare(a, none) == Difference(0, 3, 0, 0)
    assert compare(none, a) == Difference(0, 3, 0, 0)
