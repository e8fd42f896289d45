"""Files of proposals, as detectron2 reads them, and as it should not."""

import pickle

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data.build import load_proposals_into_dataset
from detectron2.structures import BoxMode

from sparsedet.data.proposals import proposal_file, with_proposals
from sparsedet.errors import InputError

RECORDS = [{"image_id": 7, "file_name": "7.jpg"}, {"image_id": "a", "file_name": "a.jpg"}]


def content(**changes):
    generator = np.random.default_rng(0)
    boxes = [generator.random((count, 4), np.float32) for count in (3, 5, 0)]
    logits = [generator.standard_normal(len(one)).astype(np.float32) for one in boxes]
    return {"ids": ["a", 7, 9], "boxes": boxes, "objectness_logits": logits, **changes}


def written(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return str(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("mode", [{}, {"bbox_mode": BoxMode.XYWH_ABS}, {"bbox_mode": 1}])
def test_as_detectron2_reads_them(tmp_path, mode, protocol):
    path = written(tmp_path / "p.pkl", content(**mode), protocol)
    expected = load_proposals_into_dataset([dict(record) for record in RECORDS], path)
    for one, other in zip(with_proposals(RECORDS, path), expected, strict=True):
        assert one.keys() == other.keys()
        assert one["proposal_bbox_mode"] == other["proposal_bbox_mode"]
        for key in ("proposal_boxes", "proposal_objectness_logits"):
            np.testing.assert_array_equal(one[key], other[key])


def test_names_of_old_files(tmp_path):
    new = content()
    old = {"indexes": new["ids"], "scores": new["objectness_logits"], "boxes": new["boxes"]}
    (one, _), (other, _) = (
        with_proposals(RECORDS, written(tmp_path / f"{n}.pkl", value))
        for n, value in enumerate((new, old))
    )
    np.testing.assert_array_equal(one["proposal_boxes"], other["proposal_boxes"])


class Intruder:
    def __reduce__(self):
        return exec, ("open('intruder', 'w').close()",)


def test_nothing_in_one_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "p.pkl", content(more=Intruder()))
    with pytest.raises(InputError, match=r"p\.pkl: not a file of proposals: builtins\.exec"):
        with_proposals(RECORDS, path)
    assert not (tmp_path / "intruder").exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1], "not a file of proposals: a list"),
        ({"ids": [7]}, "no 'boxes'"),
        (content(ids=["a"]), "not one for each image"),
        (content(ids=["a", 8, 9]), "no proposals of image 7"),
        (content(bbox_mode=4), "bbox_mode is XYWHA_ABS"),
        (content(boxes=[np.full((n, 4), np.nan) for n in (3, 5, 0)]), "image 7: .* not numbers"),
        (content(boxes=[np.zeros((n, 4)) for n in (3, 4, 0)]), "image 7: 4 boxes, 5 logits"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, value, reason):
    with pytest.raises(InputError, match=rf"p\.pkl: .*{reason}"):
        with_proposals(RECORDS, written(tmp_path / "p.pkl", value))


def test_one_file_for_each_dataset():
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.PROPOSAL_FILES_TRAIN = ("one", "two"), ("1.pkl",)
    assert proposal_file(cfg, "TRAIN", "two") is None
    cfg.MODEL.LOAD_PROPOSALS = True
    with pytest.raises(InputError, match=r"PROPOSAL_FILES_TRAIN: 1 files for the 2 data sets"):
        proposal_file(cfg, "TRAIN", "two")
    cfg.DATASETS.PROPOSAL_FILES_TRAIN = ("1.pkl", "2.pkl")
    assert proposal_file(cfg, "TRAIN", "two") == "2.pkl"
