"""Images that are unusual, and images that cannot be used."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import BoxMode
from PIL import Image

from sparsedet.data import CheckedDatasetMapper
from sparsedet.data.mapper import check_image
from sparsedet.errors import InputError


@pytest.fixture
def mapper():
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (30,)
    cfg.INPUT.RANDOM_FLIP = "none"
    return CheckedDatasetMapper(cfg, is_train=True)


def record(path, height=30, width=40):
    box = {"bbox": [1, 2, 11, 12], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "difficult": 1}
    return {"file_name": str(path), "height": height, "width": width, "annotations": [box]}


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 2), (30, 40, 3), (30, 40, 4)])
def test_gray_and_alpha_become_three_channels(tmp_path, mapper, shape):
    array = pixels(*shape)
    Image.fromarray(array).save(tmp_path / "a.png")
    mapped = mapper(record(tmp_path / "a.png"))
    channels = array.reshape(30, 40, -1).transpose(2, 0, 1)  # gray, gray alpha, RGB, RGB alpha
    bgr = channels[[2, 1, 0]] if len(channels) >= 3 else channels[[0, 0, 0]]
    assert torch.equal(mapped["image"], torch.from_numpy(bgr))
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[1, 2, 11, 12]]


@pytest.mark.parametrize("channels", ["BGR", "RGB"])
def test_training_sees_what_inference_sees(tmp_path, channels):
    """Sixteen bits, which detectron2's reader would clip to white, and a turned picture."""
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP, cfg.INPUT.FORMAT = (30,), "none", channels
    deep = pixels(30, 40)
    Image.fromarray(deep.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    turned = pixels(40, 30, 3)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(turned).save(tmp_path / "turned.png", exif=exif)
    order = [0, 1, 2] if channels == "RGB" else [2, 1, 0]
    truth = {"deep.png": np.stack([deep] * 3, 2), "turned.png": np.rot90(turned, -1)[:, :, order]}
    for name, expected in truth.items():
        mapped = CheckedDatasetMapper(cfg, is_train=True)(record(tmp_path / name))
        assert mapped["image"].permute(1, 2, 0).tolist() == expected.tolist()
        check_image(record(tmp_path / name))


def test_labels_of_a_segmentation_are_not_scaled(tmp_path, mapper):
    labels = np.random.default_rng(0).integers(0, 5, (30, 40), dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.fromarray(pixels(30, 40, 3)).save(tmp_path / "a.png")
    segmented = {**record(tmp_path / "a.png"), "sem_seg_file_name": str(tmp_path / "labels.png")}
    assert mapper(segmented)["sem_seg"].tolist() == labels.tolist()


def bad_images(folder):
    """Name -> what the message says of it."""
    Image.fromarray(pixels(30, 40, 3)).save(folder / "good.jpg", quality=95)
    Image.fromarray(pixels(30, 40, 3)).save(folder / "good.png")
    for name in ("good.jpg", "good.png"):
        data = (folder / name).read_bytes()
        (folder / name.replace("good", "truncated")).write_bytes(data[: len(data) // 2])
    data = bytearray((folder / "good.png").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "flipped.png").write_bytes(data)
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.jpg").write_bytes(b"")
    return {
        "truncated.jpg": "truncated",
        "truncated.png": "truncated",
        "flipped.png": "damaged PNG",
        "text.jpg": "not an image",
        "empty.jpg": "empty file",
        "absent.jpg": "no such file",
    }


def test_bad_images_are_named_in_one_line(tmp_path, mapper):
    for name, reason in bad_images(tmp_path).items():
        with pytest.raises(InputError) as caught:
            mapper(record(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value) and reason in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError) as checked:
            check_image(record(tmp_path / name))
        assert str(checked.value) == str(caught.value)


def test_size_that_is_not_the_annotated_one_is_named(tmp_path, mapper):
    Image.fromarray(pixels(30, 40, 3)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg, got \(40, 30\), expect \(41, 30\)"):
        mapper(record(tmp_path / "a.jpg", width=41))


class Mapped(torch.utils.data.Dataset):
    def __init__(self, mapper, records):
        self.mapper, self.records = mapper, records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.mapper(self.records[index])


def test_error_in_a_loader_worker_ends_with_the_line(tmp_path, mapper):
    bad_images(tmp_path)
    data = Mapped(mapper, [record(tmp_path / "truncated.jpg")])
    loader = torch.utils.data.DataLoader(data, num_workers=1, collate_fn=list)
    message = ""
    try:
        list(loader)
    except InputError as error:
        message = str(error)
        error.__traceback__ = None  # it holds the loader, whose workers would wait for a timeout
    last = message.strip().splitlines()[-1]
    prefix = f"sparsedet.errors.InputError: {tmp_path / 'truncated.jpg'}: cannot be read"
    assert last.startswith(prefix)


def semantic_mapper():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = "SemanticSegmentor", 5
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (30,), "none"
    return CheckedDatasetMapper(cfg, is_train=True)


def test_labels_are_the_indices_of_a_palette_as_evaluation_has_them(tmp_path):
    labels = np.random.default_rng(0).integers(0, 5, (30, 40), dtype=np.uint8)
    labels[0, 0] = 255
    picture = Image.fromarray(labels, "P")
    picture.putpalette([3, 90, 200] * 256)
    picture.save(tmp_path / "labels.png")
    Image.fromarray(pixels(30, 40, 3)).save(tmp_path / "a.png")
    segmented = {**record(tmp_path / "a.png"), "sem_seg_file_name": str(tmp_path / "labels.png")}
    assert semantic_mapper()(segmented)["sem_seg"].tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.full((30, 40), 5, np.uint8), "a label is 5, where .* is 5"),
        (np.full((30, 40), 300, np.uint16), "a label is 300"),
        (np.zeros((30, 41), np.uint8), r"\(30, 41\) labels, but its image has \(30, 40\)"),
    ],
)
def test_labels_that_no_class_has_are_named(tmp_path, labels, reason):
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.fromarray(pixels(30, 40, 3)).save(tmp_path / "a.png")
    segmented = {**record(tmp_path / "a.png"), "sem_seg_file_name": str(tmp_path / "labels.png")}
    with pytest.raises(InputError, match=rf"labels\.png: {reason}"):
        semantic_mapper()(segmented)
