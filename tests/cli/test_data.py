"""sparsedet data check, show, convert and fix, of a config's data sets and of described ones."""

import sys

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from sparsedet.cli.main import main
from sparsedet.data import generate_shapes

VOC = ("check", "--format", "voc", "--root")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    generate_shapes(str(root), 4, 2)
    return root


@pytest.fixture
def data(monkeypatch, capsys):
    """Runs a command in this process: exit status, stdout, last line of stderr."""
    before = set(DatasetCatalog.list())

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sparsedet", "data", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        output, errors = capsys.readouterr()
        return status, output, (errors.splitlines() or [""])[-1]

    yield run
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def break_one(root):
    path = root / "Annotations/000001.xml"
    path.write_text(path.read_text().replace("<xmax>", "<xmax>-"))


def test_check(data, shapes, tmp_path):
    status, output, _ = data("check", "--format", "voc", "--root", shapes)
    assert status == 0
    assert "test: 2 images" in output and "trainval: 4 images" in output
    root = tmp_path / "shapes"
    generate_shapes(str(root), 4, 2)
    break_one(root)
    status, output, error = data("check", "--format", "voc", "--root", root, "--split", "trainval")
    assert status == 1 and "which is inverted" in output and error.endswith("listed above")
    assert data("fix", "--format", "voc", "--root", root, "--output", tmp_path / "new")[0] == 0
    assert data("check", "--format", "voc", "--root", tmp_path / "new")[0] == 0


def test_what_a_config_names(data, shapes, tmp_path):
    entries = {
        "birds_train": {"format": "voc", "root": str(shapes), "split": {"train": 0.5}},
        "birds_test": {"format": "voc", "root": str(shapes), "split": {"test": 0.5}},
    }
    config = {"DATASETS": {"REGISTER": entries, "TRAIN": ["birds_train"], "TEST": ["birds_test"]}}
    (tmp_path / "birds.yaml").write_text(yaml.safe_dump(config))
    arguments = ("--config-file", tmp_path / "birds.yaml")
    status, output, _ = data("check", *arguments)
    assert status == 0 and "birds_train: 3 images" in output and "birds_test: 3 images" in output
    status, output, _ = data("check", *arguments, "--dataset", "birds_test")
    assert status == 0 and "birds_train" not in output
    new = tmp_path / "new"
    status, output, _ = data("convert", *arguments, "--to", "yolo", "--output", new)
    assert status == 0 and "3 images in train, 3 images in test" in output
    assert data("check", "--format", "yolo", "--root", new, "--split", "train", "test")[0] == 0


def test_convert_and_show_what_is_described(data, shapes, tmp_path):
    coco = ("--format", "coco", "--json", shapes / "annotations/test.json")
    coco += ("--images", shapes / "JPEGImages")
    status, output, _ = data("convert", *coco, "--to", "voc", "--output", tmp_path / "new")
    assert status == 0 and "2 images in all" in output
    share = ("--format", "voc", "--root", tmp_path / "new", "--split", "train=0.5")
    status, output, _ = data("show", *share, "--output", tmp_path / "sheet.png")
    assert status == 0 and "1 of 1 images" in output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (416, 316)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--dataset", "owls"], "error: --dataset owls: not registered"),
        (["check", "--dataset", "cityscapes_fine_instance_seg_train"], "neither VOC nor COCO"),
        (["check", "--format", "voc"], "error: --root: missing; format voc needs it"),
        (["check", "--format", "coco", "--json", "x.json"], "error: --images: missing"),
        ([*VOC, "a", "--split", "val=0.2"], "error: --split: expected"),
        ([*VOC, "a", "--split", "train=x"], "error: --split train=x"),
        (["check", "--format", "yolo", "--root", "nowhere"], "data.yaml: cannot be read"),
        (["show", "--format", "voc", "--root", "{}", "--output", "x.png"], "one sheet shows one"),
        (["show", "--format", "voc", "--root", "{}", "--split", "test", "--output", "x.gif"],
         "x.gif: the picture's name must end in .jpg or .png"),
        (["check"], "name data sets: --config-file, --dataset or --format"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_ends_in_one_line(data, shapes, arguments, message):
    status, _, error = data(*(argument.format(shapes) for argument in arguments))
    assert status in (1, 2) and message in error


def test_what_detectron2_registered(data):
    status, output, _ = data("check", "--dataset", "voc_2007_test")
    assert status == 1 and "VOC2007" in output
    status, output, _ = data("check", "--dataset", "coco_2017_val")
    assert status == 1 and "instances_val2017.json: no such annotation file" in output
