"""YOLO datasets: layouts, boxes and polygons, and what is wrong with them."""

import numpy as np
import pytest
import yaml
from PIL import Image

from sparsedet.data.entries import parse_entry
from sparsedet.data.yolo import read_yolo
from sparsedet.errors import InputError

YAML = {"path": ".", "train": "images/train", "val": "images/val", "names": ["robin", "wren"]}


def write(root, images=("train/a", "val/b"), text="1 0.5 0.5 0.25 0.5\n", content=YAML):
    root.mkdir(exist_ok=True)
    for image in images:
        for folder, suffix in (("images", ".png"), ("labels", ".txt")):
            path = root / folder / f"{image}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".png":
                Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)
            elif text is not None:
                path.write_text(text)
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return str(root)


def load(root, split="train", **fields):
    return parse_entry("x", {"format": "yolo", "root": str(root), "split": split, **fields})()


def test_a_box_in_pixels(tmp_path):
    (record,) = load(write(tmp_path))
    (obj,) = record["annotations"]
    assert (record["width"], record["height"]) == (40, 30)
    assert record["image_id"] == "images/train/a.png"
    assert obj["category_id"] == 1 and obj["bbox"] == [15, 7.5, 25, 22.5]


def test_polygons_and_keypoints(tmp_path):
    write(tmp_path, text="0 0.1 0.2 0.5 0.2 0.5 0.8 0.3 0.9\n")
    assert load(tmp_path)[0]["annotations"][0]["bbox"] == pytest.approx([4, 6, 20, 27])
    # x, y, width, height, and two keypoints: as many numbers as a polygon has.
    write(
        tmp_path, text="0 0.5 0.5 0.25 0.5 0.9 0.9 0.1 0.1\n", content={**YAML, "kpt_shape": [2, 2]}
    )
    assert load(tmp_path)[0]["annotations"][0]["bbox"] == [15, 7.5, 25, 22.5]


@pytest.mark.parametrize(
    "content",
    [
        {**YAML, "names": {0: "robin", 1: "wren"}, "nc": 2},
        {**YAML, "path": "elsewhere/birds"},
        {**YAML, "path": None},
        {**YAML, "train": "../images/train"},  # as Roboflow writes it
        {**YAML, "train": ["images/train"]},
        {**YAML, "train": "train.txt"},
    ],
)
def test_forms_of_the_yaml(tmp_path, content):
    (tmp_path / "train.txt").write_text("./images/train/a.png\n")
    source = parse_entry("x", {"format": "yolo", "root": write(tmp_path, content=content),
                               "split": "train"})  # fmt: skip
    assert source.classes == ("robin", "wren") and len(source()) == 1


def test_roboflow_folders_and_labels_beside_images(tmp_path):
    for part in ("train", "valid"):
        for folder in ("images", "labels"):
            (tmp_path / part / folder).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(tmp_path / part / "images/x.jpg")
        (tmp_path / part / "labels/x.txt").write_text("0 .5 .5 .5 .5")
    content = {"train": "../train/images", "val": "../valid/images", "names": ["a"]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
    assert len(load(tmp_path, "val")[0]["annotations"]) == 1
    (tmp_path / "train/labels/x.txt").rename(tmp_path / "train/images/x.txt")
    assert len(load(tmp_path, "train")[0]["annotations"]) == 1


def test_shares_are_of_all_images(tmp_path):
    write(tmp_path, [f"train/{i}" for i in range(8)] + ["val/8", "val/9"])
    names = [
        {d["image_id"] for d in load(tmp_path, {k: v})} for k, v in (("train", 0.8), ("test", 0.2))
    ]
    assert [len(part) for part in names] == [8, 2] and not names[0] & names[1]


def test_images_without_labels_are_empty_unless_all_are(tmp_path):
    write(tmp_path, ["train/a", "train/b"])
    (tmp_path / "labels/train/b.txt").unlink()
    assert [len(d["annotations"]) for d in load(tmp_path)] == [1, 0]
    (tmp_path / "labels/train/a.txt").unlink()
    with pytest.raises(InputError, match="a.txt: no such label, nor one of the 2 images"):
        load(tmp_path)


def test_a_turned_photo_has_the_size_it_is_seen_in(tmp_path):
    write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "images/train/a.png", exif=exif)
    (record,) = load(tmp_path)
    assert (record["width"], record["height"]) == (30, 40)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2", "3 numbers after the class"),
        ("0 0.5 0.5 0.2 0.2 0.9", "5 numbers after the class"),
        ("0", "0 numbers after the class"),
        ("0 0.5 0.5 0.2 x", "something that is no number"),
        ("robin 0.5 0.5 0.2 0.2", "something that is no number"),
        ("0 nan 0.5 0.2 0.2", "not finite"),
        ("0 0.1 0.2 nan 0.2 0.5 0.8", "not finite"),
        ("0 0.5 0.5 0 0.2", "empty"),
        ("0 0.5 0.5 -0.2 0.2", "inverted"),
        ("0 0.9 0.5 0.5 0.2", "outside its image of 40x30"),
        ("0 20 15 10 10", "are these pixels?"),
        ("2 0.5 0.5 0.2 0.2", "is of class 2, but the names of"),
        ("0.5 0.5 0.5 0.2 0.2", "is of class 0.5"),
        ("-1 0.5 0.5 0.2 0.2", "is of class -1"),
        ("nan 0.5 0.5 0.2 0.2", "is of class nan"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, reason):
    write(tmp_path, text=f"\n{line}\n")
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'labels/train/a.txt'}: line 2 ")
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_a_label_without_its_image_stops(tmp_path):
    write(tmp_path)
    (tmp_path / "labels/train/classes.txt").write_text("robin\nwren\n")
    assert len(load(tmp_path)) == 1
    (tmp_path / "labels/train/lost.txt").write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(InputError, match="lost.txt: there is no image for it"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"train": "images/train"}, "names: expected a list"),
        ({**YAML, "names": {0: "a", 2: "b"}}, "names: the numbers must be 0, 1, 2"),
        ({**YAML, "names": ["a", "a"]}, "more than once"),
        ({**YAML, "names": ["a", False]}, "False is not a text"),
        ({**YAML, "nc": 3}, "nc is 3, but there are 2 names"),
        ({"names": ["a"]}, "has none of train, val, test"),
        ({**YAML, "train": 5}, "train: expected a path"),
        ({**YAML, "path": 5}, "path: expected a path"),
        ({**YAML, "train": "images/other"}, "images/other: not there, but"),
        ({**YAML, "train": "images/none"}, "images/none: no images in it"),
    ],
)
def test_bad_yaml_is_named(tmp_path, content, reason):
    write(tmp_path, content=content)
    (tmp_path / "images/none").mkdir()
    with pytest.raises(InputError) as caught:
        read_yolo(str(tmp_path), "train")
    assert reason in str(caught.value) and "data.yaml" in str(caught.value)


def test_what_is_not_there(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match="has no test; it has train, val"):
        load(tmp_path, "test")
    with pytest.raises(InputError, match="data.yaml: cannot be read"):
        read_yolo(str(tmp_path / "nowhere"), "train")
    (tmp_path / "train.txt").write_text("images/train/gone.png\n")
    write(tmp_path, content={**YAML, "train": "train.txt"})
    with pytest.raises(InputError, match="gone.png: no such image"):
        load(tmp_path)
