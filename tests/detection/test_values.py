"""Values of a config that cannot work, told before any work."""

import pytest
import yaml
from detectron2.config import get_cfg

from sparsedet.config import add_sparsedet_config
from sparsedet.detection.config import load_config
from sparsedet.detection.load import load_model
from sparsedet.detection.values import TRAINING, check_rules
from sparsedet.errors import InputError


@pytest.fixture
def config(tmp_path):
    """Write a yaml file with these values, on detectron2's defaults."""

    def write(**sections):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"VERSION": 2, **sections}))
        return path

    return write


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.META_ARCHITECTURE", "GeneralisedRCNN"], "did you mean GeneralizedRCNN"),
        (["MODEL.BACKBONE.NAME", "build_vgg_bakbone"], "did you mean build_vgg_backbone"),
        (["MODEL.RPN.HEAD_NAME", "x"], "MODEL.RPN.HEAD_NAME: 'x' is not registered"),
        (["MODEL.DEVICE", "gpu"], "MODEL.DEVICE 'gpu': no such device"),
        (["MODEL.DEVICE", "cuda:99"], "MODEL.DEVICE cuda:99: PyTorch finds"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "0"], "NUM_CLASSES is 0; expected 1 or more"),
        (["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "1.5"], "expected a number from 0 to 1"),
        (["MODEL.PIXEL_STD", "[1.0, 0.0, 1.0]"], "expected numbers above 0"),
        (["MODEL.PIXEL_STD", "['a', 'b', 'c']"], "expected numbers above 0"),
        (["MODEL.PIXEL_MEAN", "[1.0]"], "expected as many as PIXEL_MEAN"),
        (["MODEL.PIXEL_MEAN", "[1.0, 1.0, float]"], "PIXEL_MEAN"),
        (["MODEL.ROI_HEADS.IOU_LABELS", "[1]"], "MODEL.ROI_HEADS.IOU_LABELS is .1.; expected a"),
        (["INPUT.MIN_SIZE_TEST", "-1"], "INPUT.MIN_SIZE_TEST is -1"),
        (["SEED", "99999999999"], "SEED is 99999999999"),
        (["SOLVER.BASE_LR", "fast"], "SOLVER.BASE_LR is fast; expected a value of type float"),
        (["MODEL.VGG", "3"], "MODEL.VGG is 3; it has keys of its own"),
        (["MODEL.VGG.DEPTH.X", "3"], "a key goes on below one that has a value"),
        (["MODEL.VGG.DEPTH"], "come in pairs KEY VALUE"),
    ],
)
def test_on_the_command_line(config, opts, message):
    with pytest.raises(InputError, match=message) as error:
        load_config(config(), opts)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"MODEL": {"META_ARCHITECTURE": None}}, "META_ARCHITECTURE has no value"),  # cut short
        ({"SOLVER": {"BASE_LR": float("nan")}}, "SOLVER.BASE_LR is nan"),
        ({"MODEL": {"ROI_HEADS": {"IOU_THRESHOLDS": [0.3, 0.5]}}}, "IOU_LABELS is .0, 1."),
    ],
)
def test_in_a_file(config, sections, message):
    with pytest.raises(InputError, match=message):
        load_config(config(**sections))


def test_what_detectron2_finds_as_it_builds_is_one_line(config):
    for sections, message in (
        ({"MODEL": {"RESNETS": {"DEPTH": 7}}}, "model of this config cannot be built: KeyError"),
        # An assertion without a message is told by itself.
        ({"MODEL": {"ROI_HEADS": {"IN_FEATURES": ["res4", "res5"]}}}, "line [0-9]+: assert"),
    ):
        with pytest.raises(InputError, match=message) as error:
            load_model(load_config(config(**sections), ["MODEL.DEVICE", "cpu"]), "none.pth")
        assert "\n" not in str(error.value) and error.value.__cause__ is not None


@pytest.mark.parametrize(
    "key, value",
    [
        ("SOLVER.IMS_PER_BATCH", 0),
        ("SOLVER.BASE_LR", -0.1),
        ("SOLVER.MAX_ITER", 0),
        ("SOLVER.MOMENTUM", 1.0),
        ("SOLVER.STEPS", (5, 3)),
        ("SOLVER.STEPS", ("a", 3)),
        ("SOLVER.CHECKPOINT_PERIOD", 0),
        ("DATALOADER.NUM_WORKERS", -1),
        ("INPUT.MIN_SIZE_TRAIN", ()),
        ("DATASETS.TRAIN", ()),
    ],
)
def test_what_cannot_train(key, value):
    cfg = get_cfg()
    add_sparsedet_config(cfg)
    cfg.DATASETS.TRAIN = ("some",)
    check_rules(cfg, TRAINING)
    cfg.merge_from_list([key, value])
    with pytest.raises(InputError, match=f"^{key} is "):
        check_rules(cfg, TRAINING)
