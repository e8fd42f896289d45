"""The configs that come with the package."""

from pathlib import Path

import pytest

from sparsedet import load_config, model_zoo
from sparsedet.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_config_has_its_name():
    files = list(CONFIGS.rglob("*.yaml"))
    assert files
    for file in files:
        assert Path(model_zoo.get_config_file(file.relative_to(CONFIGS).as_posix())) == file


def test_a_config_is_read_with_its_base():
    cfg = load_config(model_zoo.get_config_file("VOC-Detection/faster_rcnn_VGG_16_sparse.yaml"))
    assert cfg.MODEL.BACKBONE.NAME == "build_sparse_vgg_backbone"  # its own
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 20  # of its _BASE_


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("VOC-Detection/faster_rcnn_VGG16_sparse.yaml", "VOC-Detection/faster_rcnn_VGG_16_sparse"),
        ("Base-RCNN-VGG-16", "Base-RCNN-VGG-16.yaml"),
        ("../setup.py", ""),
        ("", ""),
    ],
)
def test_a_config_that_is_not_there(name, nearest):
    with pytest.raises(InputError, match="no such config in sparsedet's model zoo") as refusal:
        model_zoo.get_config_file(name)
    message = str(refusal.value)
    assert message.startswith(f"{name}: ") and f"nearest: {nearest}" in message
    assert "\n" not in message
