"""On a GPU, where there is one: what a CPU gives."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import sparsedet
from sparsedet.classification.cam import ActivationMaps
from sparsedet.kernels import PATTERNS, sparse_kernels
from sparsedet.layers import SparseFusionConv2d
from sparsedet.modeling import ImageClassifier
from sparsedet.training.trainer import Trainer

GPU = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def full_precision():
    """PyTorch computes convolutions in TF32 otherwise."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def detectors(kitchen):
    """The same on the CPU and on the GPU."""
    return [
        sparsedet.load_model(
            sparsedet.load_config(kitchen / "config.yaml", ["MODEL.DEVICE", device])
        )
        for device in ("cpu", GPU)
    ]


def found_by(model, image):
    found = sparsedet.Predictor.of(model).run(image)["instances"].to("cpu")
    found = found[found.scores > 0.3]
    return found.pred_classes.tolist(), found.scores, found.pred_boxes.tensor


def assert_alike(expected, found, tolerance=1e-3):
    assert expected[0] == found[0] and expected[0]
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=tolerance)
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=100 * tolerance)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kernel_size, stride, dilation", [(3, 1, 1), (5, 2, 1), (3, 1, 2)])
def test_a_layer_equals_a_dense_convolution_and_so_do_its_gradients(
    pattern, kernel_size, stride, dilation
):
    torch.manual_seed(0)
    ranks = [4] * len(sparse_kernels(pattern, (kernel_size, kernel_size)))
    layer = SparseFusionConv2d(
        *(6, 8, kernel_size), stride=stride, padding=2, dilation=dilation, pattern=pattern,
        ranks=ranks,
    ).to(GPU, torch.double)  # fmt: skip
    dense = layer.to_dense()
    assert dense.weight.device.type == torch.device(GPU).type
    x = torch.randn(2, 6, 17, 20, dtype=torch.double, device=GPU, requires_grad=True)
    torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=1e-10)
    (expected,) = torch.autograd.grad(dense(x).square().sum(), x)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("targets", [{"params": 3}, {"params": 3, "flops": 2, "width": True}])
def test_a_detector_is_compressed_as_on_a_cpu(targets, detectors, photos, picture):
    image = picture(64, 96, 9)
    assert_alike(*(found_by(model, image) for model in detectors))
    on_cpu, on_gpu = (sparsedet.compress_(model, images=photos, **targets) for model in detectors)
    assert on_gpu.parameters[1] == pytest.approx(on_cpu.parameters[1], rel=0.1)
    for name in set(on_cpu.layers) & set(on_gpu.layers):
        if on_cpu.plan[name] == on_gpu.plan[name]:
            assert on_gpu.layers[name].error == pytest.approx(
                on_cpu.layers[name].error, rel=0.2, abs=1e-4
            )
    devices = {parameter.device.type for parameter in detectors[1].parameters()}
    assert devices == {torch.device(GPU).type}


def test_a_plan_is_fitted_as_on_a_cpu(detectors, photos, picture, tmp_path):
    plan = sparsedet.compress_(copy.deepcopy(detectors[0]), images=photos, params=3).plan
    results = [sparsedet.compress_(model, images=photos, plan=plan) for model in detectors]
    errors = [{name: layer.error for name, layer in x.layers.items()} for x in results]
    assert errors[1] == pytest.approx(errors[0], rel=0.05, abs=1e-5)
    results[1].save(tmp_path / "compact")
    config = tmp_path / "compact" / "config.yaml"
    image = picture(64, 96, 9)
    expected = found_by(detectors[1], image)
    for device in ("cpu", GPU):
        loaded = sparsedet.load_model(sparsedet.load_config(config, ["MODEL.DEVICE", device]))
        assert_alike(expected, found_by(loaded, image))
    assert_alike(expected, found_by(sparsedet.optimize_for_inference(detectors[1]), image))


@pytest.mark.parametrize(
    "name, precision", [("m.onnx", "f32"), ("m.xml", "f32"), ("m.onnx", "int8")]
)
def test_an_exported_model_stays_where_it_is(name, precision, detectors, photos, tmp_path):
    if name.endswith(".xml"):
        pytest.importorskip("openvino")
    model = detectors[1]
    apart = sparsedet.export(model, tmp_path / name, precision=precision, images=photos)
    assert apart.matched
    assert {parameter.device.type for parameter in model.parameters()} == {torch.device(GPU).type}
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("engine", ["eager", "onnxruntime"])
def test_time_is_measured_in_an_engine(engine, detectors, photos):
    result = sparsedet.compress_(
        detectors[1], images=photos, params=2, no_slower=True, engine=engine
    )
    assert min(result.milliseconds) > 0


@pytest.mark.parametrize("amp", [False, True])
def test_a_compact_model_learns_from_its_teacher(amp, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shapes))
    cfg = sparsedet.load_config(
        sparsedet.model_zoo.get_config_file("Shapes-Detection/faster_rcnn_VGG_11.yaml"),
        [
            *("MODEL.DEVICE", GPU, "MODEL.VGG.WIDTH_MULTIPLIER", 0.125),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 32),
            *("INPUT.MIN_SIZE_TRAIN", [64], "INPUT.MIN_SIZE_TEST", 64, "SOLVER.IMS_PER_BATCH", 2),
            *("SOLVER.MAX_ITER", 3, "SOLVER.STEPS", [], "SOLVER.BASE_LR", 0.001, "SEED", 1),
            *("SOLVER.AMP.ENABLED", amp, "TEST.EVAL_PERIOD", 3, "DATALOADER.NUM_WORKERS", 0),
            *("OUTPUT_DIR", str(tmp_path / "dense")),
        ],
    )
    trainer = Trainer(cfg)
    trainer.train()
    weights = str(tmp_path / "dense" / "model_final.pth")
    model = sparsedet.load_model(cfg, weights)
    sparsedet.compress_(model, params=2, num_images=4).save(tmp_path / "compact")
    compact = sparsedet.load_config(
        tmp_path / "compact" / "config.yaml",
        [
            *("MODEL.DISTILLATION.TEACHER", weights, "OUTPUT_DIR", str(tmp_path / "tuned")),
            *("SOLVER.MAX_ITER", 3, "SOLVER.STEPS", [], "SOLVER.WARMUP_ITERS", 0),
        ],
    )
    assert compact.MODEL.DEVICE == GPU
    trainer = Trainer(compact)
    trainer.resume_or_load(resume=False)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed and all(p.isfinite().all() for p in after.values())


def test_a_classifier():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    model = ImageClassifier(
        network, pixel_mean=[0] * 3, pixel_std=[60] * 3, input_format="RGB"
    ).eval()
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    expected = ActivationMaps(model)(image)
    found = ActivationMaps(model.to(GPU))(image)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
