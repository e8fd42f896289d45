"""Loading VOC-style folders: exact values, and every kind of bad input in one line."""

import os

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image

from sparsedet.data import load_voc
from sparsedet.errors import InputError

CLASSES = ["robin", "wren"]


def obj(name="robin", box=(1, 1, 10, 10), extra=""):
    keys = ("xmin", "ymin", "xmax", "ymax")
    corners = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, box))
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def xml(*objects, size="<size><width>40</width><height>30</height></size>", filename=""):
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


@pytest.fixture
def folder(tmp_path):
    """Writes a VOC-style folder: ID -> (XML or None, image file name or None)."""

    def write(images, split=None):
        for sub in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (tmp_path / sub).mkdir(parents=True, exist_ok=True)
        for image_id, (text, file_name) in images.items():
            if text is not None:
                (tmp_path / "Annotations" / f"{image_id}.xml").write_text(text)
            if file_name is not None:
                pixels = np.zeros((30, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "JPEGImages" / file_name)
        lines = "\n".join(images) if split is None else split
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text(lines)
        return str(tmp_path)

    return write


def test_exact_values_in_the_order_of_the_split(folder):
    part = "<part><name>beak</name><bndbox><xmin>90</xmin></bndbox></part>"
    root = folder(
        {
            "b": (
                xml(
                    obj("wren", (3, 4, 20, 25), "<difficult>1</difficult>" + part),
                    obj("robin", (1, 1, 40, 30)),
                ),
                "b.jpg",
            ),
            "a": (xml(), "a.png"),
        }
    )
    assert load_voc(root, "train", CLASSES) == [
        {
            "file_name": os.path.join(root, "JPEGImages", "b.jpg"),
            "image_id": "b",
            "height": 30,
            "width": 40,
            "annotations": [
                {
                    "category_id": 1,
                    "bbox": [2.0, 3.0, 20.0, 25.0],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "difficult": 1,
                },
                {
                    "category_id": 0,
                    "bbox": [0.0, 0.0, 40.0, 30.0],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "difficult": 0,
                },
            ],
        },
        {
            "file_name": os.path.join(root, "JPEGImages", "a.png"),
            "image_id": "a",
            "height": 30,
            "width": 40,
            "annotations": [],
        },
    ]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 41, 31), [0, 0, 40, 30]),  # one pixel over on every side: clipped
        ((0, 0, 39, 29), [0, 0, 39, 29]),  # a tool that counts from 0
        ((40, 30, 41, 31), [39, 29, 40, 30]),
        ((2.5, 3.25, 10.5, 11.75), [1.5, 2.25, 10.5, 11.75]),
    ],
)
def test_boxes_are_shifted_and_clipped(folder, box, expected):
    root = folder({"a": (xml(obj(box=box)), "a.jpg")})
    assert load_voc(root, "train", CLASSES)[0]["annotations"][0]["bbox"] == expected


@pytest.mark.parametrize("file_name", ["a.jpg", "a.jpeg", "a.png", "a.JPG", "other.png"])
def test_images_are_found_by_id_or_by_filename(folder, file_name):
    root = folder({"a": (xml(filename="other.png"), file_name)})
    assert os.path.basename(load_voc(root, "train", CLASSES)[0]["file_name"]) == file_name


def test_split_file_may_have_blank_lines_byte_order_mark_and_windows_ends(folder):
    images = {"a": (xml(), "a.jpg"), "b c": (xml(), "b c.jpg")}
    root = folder(images, "\ufeffa\r\n\r\nb c \r\n")
    assert [d["image_id"] for d in load_voc(root, "train", CLASSES)] == ["a", "b c"]


def error(root, split="train"):
    with pytest.raises(InputError) as caught:
        load_voc(root, split, CLASSES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (xml(obj(box=(5, 5, 5, 9))), "empty"),
        (xml(obj(box=(5, 9, 8, 9))), "empty"),
        (xml(obj(box=(9, 5, 5, 9))), "inverted"),
        (xml(obj(box=(5, 9, 9, 5))), "inverted"),
        (xml(obj(box=(5, 5, 42, 9))), "outside its image of 40x30"),
        (xml(obj(box=(5, 5, 9, 32))), "outside its image of 40x30"),
        (xml(obj(box=(-1, 5, 9, 9))), "outside its image of 40x30"),
        (xml(obj(box=(50, 5, 60, 9))), "outside its image of 40x30"),
        (xml(obj(box=("nan", 5, 9, 9))), "not finite"),
        (xml(obj(box=("", 5, 9, 9))), "no number in <bndbox><xmin>"),
        (xml(obj(box=(5, 5))), "no number in <bndbox><xmax>"),
        (xml(obj(), obj("owl")), "object 2 is of class 'owl', which is not one of"),
        (xml(obj("owl")), "known classes: robin, wren"),
        (xml(obj("")), "object 1 has no <name>"),
        (xml(size=""), "no <size>"),
        (xml(size="<size><width>40</width></size>"), "no <size>"),
        (xml(size="<size><width>0</width><height>0</height></size>"), "<size> is 0x0"),
        ("<annotation>", "cannot be parsed as XML"),
        ("", "cannot be parsed as XML"),
        ("\x00\x01", "cannot be parsed as XML"),
    ],
)
def test_bad_annotation_is_named(folder, text, expected):
    root = folder({"good": (xml(obj()), "good.jpg"), "bad": (text, "bad.jpg")})
    message = error(root)
    assert message.startswith(os.path.join(root, "Annotations", "bad.xml") + ": ")
    assert expected in message


def test_missing_files_are_named_and_counted(folder):
    root = folder({"a": (xml(), "a.jpg"), "b": (None, "b.jpg")})
    assert error(root).startswith(os.path.join(root, "Annotations", "b.xml") + ": no such")
    root = folder({"a": (xml(), "a.jpg"), "c": (xml(), None), "d": (None, None)})
    message = error(root)
    assert message.startswith(os.path.join(root, "JPEGImages", "c.jpg") + ": no such")
    assert os.path.join(root, "Annotations", "d.xml") + ": no such annotation" in message


def test_missing_folders_and_bad_splits_are_named(folder, tmp_path):
    assert error(str(tmp_path / "nowhere")) == f"{tmp_path / 'nowhere'}: no such folder"
    assert "no Annotations folder" in error(str(tmp_path))
    root = folder({"a": (xml(), "a.jpg")})
    assert error(root, "val") == os.path.join(root, "ImageSets", "Main", "val.txt") + (
        ": no such split file"
    )
    assert "lists no image" in error(folder({}, "\n\n"))
    assert "lists 'a' 2 times" in error(folder({"a": (xml(), "a.jpg")}, "a\nb\na\n"))
