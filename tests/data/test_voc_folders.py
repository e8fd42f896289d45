"""VOC-style folders as they are found: with lists or not, in parts, in one folder or two."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from sparsedet.data.entries import parse_entry
from sparsedet.data.shares import Share
from sparsedet.data.voc import load_voc, read_classes, read_voc
from sparsedet.errors import InputError


def annotation(filename="", name="wren", extra="<difficult>0</difficult>", boxes=1):
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    return (
        f"<annotation><filename>{filename}</filename>"
        "<size><width>40</width><height>30</height></size>"
        + f"<object><name>{name}</name>{extra}{box}</object>" * boxes
        + "</annotation>"
    )


def write(root, xml_folder, image_folder, stems, suffix=".jpg", **fields):
    for folder in (xml_folder, image_folder):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem in stems:
        (root / xml_folder / f"{stem}.xml").write_text(annotation(**fields))
        pixels = Image.fromarray(np.zeros((30, 40, 3), np.uint8))
        pixels.save(root / image_folder / f"{stem}{suffix}")
    return str(root)


@pytest.mark.parametrize(
    ("xml_folder", "image_folder"),
    [(".", "."), ("annotations", "images"), ("Annotations", "JPEGImages"), ("xmls", "photos"),
     (".", "images"), ("annotations", ".")],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".webp", ".bmp", ".JPEG", ".tiff"])
def test_one_folder_or_two_and_any_suffix(tmp_path, xml_folder, image_folder, suffix):
    root = write(tmp_path, xml_folder, image_folder, "ab", suffix)
    dicts = load_voc(root, None, ["wren"])
    assert [d["image_id"] for d in dicts] == ["a", "b"]
    expected = [tmp_path / image_folder / f"{stem}{suffix}" for stem in "ab"]
    assert all(map(os.path.samefile, (d["file_name"] for d in dicts), expected))


def test_parts_as_roboflow_exports_them(tmp_path):
    write(tmp_path, "train", "train", ["a_jpg.rf.1", "b_jpg.rf.2"])
    write(tmp_path, "valid", "valid", ["c_jpg.rf.3"], name="robin")
    (tmp_path / "README.roboflow.txt").write_text("exported")
    assert [d["image_id"] for d in load_voc(str(tmp_path), "valid", ["robin"])] == ["c_jpg.rf.3"]
    # The classes are those of all parts, so that they are the same in each.
    assert read_classes(str(tmp_path)) == ["robin", "wren"]
    with pytest.raises(InputError, match="has the splits train, valid; name one by split"):
        load_voc(str(tmp_path), None, ["wren"])
    assert len(load_voc(str(tmp_path), Share("train", 0.7), ["wren", "robin"])) == 2


def test_parts_of_which_one_alone_is_annotated(tmp_path):
    write(tmp_path, "train", "train", "ab")
    (tmp_path / "test").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "test/c.jpg")
    assert len(load_voc(str(tmp_path), None, ["wren"])) == 2
    with pytest.raises(InputError, match="no Annotations folder and no XML files"):
        load_voc(str(tmp_path), "test", ["wren"])


def test_a_split_that_is_not_there(tmp_path):
    write(tmp_path / "parts", "train", "train", "a")
    write(tmp_path / "parts", "valid", "valid", "b")
    assert error(tmp_path / "parts", "val").endswith("it has train, valid")
    write(tmp_path / "whole", "annotations", "images", "a")
    assert "it has none: leave split out" in error(tmp_path / "whole", "val")
    (tmp_path / "json/annotations").mkdir(parents=True)
    (tmp_path / "json/annotations/train.json").write_text("{}")
    assert "no XML files" in error(tmp_path / "json")


def test_lists_must_be_chosen_from(tmp_path):
    root = write(tmp_path, "Annotations", "JPEGImages", "abc")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nc\n")
    (tmp_path / "ImageSets/Main/wren_train.txt").write_text("a 1\nc -1\n")
    assert [d["image_id"] for d in load_voc(root, "train", ["wren"])] == ["a", "c"]
    with pytest.raises(InputError, match="has the splits train; name one by split"):
        load_voc(root, None, ["wren"])


def test_the_image_that_the_xml_names_comes_first(tmp_path):
    root = write(tmp_path, ".", ".", "a", ".jpg", filename=r"C:\\photos\\a.png")
    assert load_voc(root, None, ["wren"])[0]["file_name"] == str(tmp_path / "a.jpg")
    write(tmp_path, ".", ".", "a", ".png", filename="folder/a.png")
    assert load_voc(root, None, ["wren"])[0]["file_name"] == str(tmp_path / "a.png")


def error(root, split=None, classes=("wren",)):
    with pytest.raises(InputError) as caught:
        load_voc(str(root), split, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_image_is_guessed(tmp_path):
    write(tmp_path / "two", ".", ".", "a", ".jpg")
    write(tmp_path / "two", ".", ".", "a", ".png")
    assert "a.jpg and a.png are both there; name one" in error(tmp_path / "two")
    write(tmp_path / "other", ".", ".", "b", filename="a.jpg")
    write(tmp_path / "other", ".", ".", "a", filename="a.jpg")
    assert "b.xml: <filename> is a.jpg, but b.jpg is there as well" in error(tmp_path / "other")
    (tmp_path / "other" / "b.jpg").unlink()
    assert "a.jpg is that of" in error(tmp_path / "other")


def test_images_without_annotations_are_told(tmp_path, caplog):
    root = write(tmp_path, ".", ".", "abc")
    (tmp_path / "b.xml").unlink()
    (tmp_path / "._a.xml").write_bytes(b"\0\5\x16\7")  # macOS's, of every file in its archives
    with caplog.at_level(logging.WARNING):
        assert len(load_voc(root, None, ["wren"])) == 2
    assert "1 images have no annotation and are left out" in caplog.text and "b.jpg" in caplog.text


def test_one_box_in_twenty_may_be_unusable(tmp_path, caplog):
    write(tmp_path, ".", ".", ["a"], boxes=19)
    bad = annotation().replace("<xmax>9", "<xmax>1")
    write(tmp_path, ".", ".", ["b"])
    (tmp_path / "b.xml").write_text(bad)
    with caplog.at_level(logging.WARNING):
        dicts = load_voc(str(tmp_path), None, ["wren"])
    assert [len(d["annotations"]) for d in dicts] == [19, 0]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "1 of 20 boxes are left out" in line and "b.xml: object 1 (wren)" in line
    (tmp_path / "a.xml").write_text(annotation(boxes=18))
    assert "b.xml: object 1 (wren)" in error(tmp_path)
    source = parse_entry("x", {"format": "voc", "root": str(tmp_path), "on_error": "stop"})
    (tmp_path / "a.xml").write_text(annotation(boxes=100))
    assert len(parse_entry("x", {"format": "voc", "root": str(tmp_path)})()) == 2
    with pytest.raises(InputError, match="b.xml: object 1"):
        source()


def test_an_unknown_class_stops_even_once(tmp_path):
    write(tmp_path, ".", ".", ["a"], boxes=100)
    write(tmp_path, ".", ".", ["b"], name="owl")
    assert "b.xml: object 1 is of class 'owl'" in error(tmp_path)


def test_many_problems_are_counted(tmp_path):
    write(tmp_path, ".", ".", "abcdef")
    for stem in "abcde":
        (tmp_path / f"{stem}.jpg").unlink()
    message = error(tmp_path)
    assert message.count("no such image") == 3 and "and 2 more (in all: 5 missing image)" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("1.0", 1), ("True", 1), ("yes", 1), ("TRUE", 1), ("2", 1),
     ("0", 0), ("0.0", 0), ("False", 0), ("no", 0), ("", 0), ("Unspecified", 0)],
)  # fmt: skip
@pytest.mark.parametrize("tag", ["difficult", "Difficult", "DIFFICULT"])
def test_difficult_as_people_write_it(tmp_path, tag, text, expected):
    root = write(tmp_path, ".", ".", "a", extra=f"<{tag}>{text}</{tag}>")
    (record,) = load_voc(root, None, ["wren"])
    assert record["annotations"][0]["difficult"] == expected


def test_difficult_of_another_kind_is_no_guess(tmp_path):
    write(tmp_path, ".", ".", "a", extra="<difficult>perhaps</difficult>")
    assert "<difficult> 'perhaps', which is neither 1 nor 0" in error(tmp_path)


def test_tags_in_capitals(tmp_path):
    root = write(tmp_path, ".", ".", "a")
    text = (tmp_path / "a.xml").read_text()
    for tag in ("object", "name", "bndbox", "xmin", "size", "width", "filename"):
        text = text.replace(f"<{tag}>", f"<{tag.title()}>").replace(
            f"</{tag}>", f"</{tag.title()}>"
        )
    (tmp_path / "a.xml").write_text(text)
    (record,) = load_voc(root, None, ["wren"])
    assert record["annotations"][0]["bbox"] == [0, 0, 9, 9] and record["width"] == 40


def test_any_class_that_is_there(tmp_path):
    write(tmp_path, ".", ".", "a", name="wren")
    write(tmp_path, ".", ".", "b", name="owl")
    assert read_voc(str(tmp_path), None).classes == ["owl", "wren"]
