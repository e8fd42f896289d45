"""Where the data sets and the weights to start from are on this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from sparsedet.data import generate_shapes
from sparsedet.data.entries import locate, places_of
from sparsedet.detection.config import load_config
from sparsedet.errors import InputError

from .studies import Study

SHAPES = "shapes"
WEIGHTS = "vgg16"
HOW_TO = {
    WEIGHTS: "what `sparsedet convert` makes of VGG-16's convolutions (docs/experiments.md says "
    "of which file): --data vgg16=FILE.pth",
}


def parse_places(texts: Sequence[str]) -> dict[str, str]:
    """Of ``NAME=PATH`` each.

    Raises:
        InputError: one is not of that form, or there is nothing at its path.
    """
    places = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not name or not os.path.exists(path):
            raise InputError(f"--data {text}: expected NAME=PATH of a folder or file that is there")
        places[name] = os.path.abspath(path)
    return places


class Materials:
    """What is where: by ``--data``, or else where detectron2's users keep their data sets.

    Args:
        places: paths by name.
        work: the folder in which the demo set is drawn where it has no place.
    """

    def __init__(self, places: Mapping[str, str], work: Path):
        self.places = dict(places)
        self.work = work

    def find(self, name: str) -> str:
        """The path of a data set or of weights; the demo set is drawn if need be.

        Raises:
            InputError: it is not there.
        """
        if name == SHAPES and name not in self.places:
            place = str(self.work / "data" / SHAPES)
            generate_shapes(place)
        else:
            place = self.places.get(name) or locate(name)
        if not os.path.exists(place):
            how = HOW_TO.get(
                name, f"put it there, or give --data {name}=FOLDER (datasets/README.md)"
            )
            raise InputError(f"{name}: there is no {place}; {how}")
        return place

    def config(self, study: Study) -> CfgNode:
        """The config of the study's dense model, with its data sets and weights as they are here.

        It runs on a GPU where there is one, and what follows from it, too.

        Raises:
            InputError: something is not there.
        """
        places = {name: self.find(name) for name in study.data}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        opts = ["MODEL.DEVICE", device, "MODEL.WEIGHTS", places.get(WEIGHTS, "")]
        before = load_config(str(study.config))
        for name, entry in before.DATASETS.REGISTER.items():
            for key in places_of(entry["format"]):
                root, _, rest = entry[key].partition("/")
                if root in places:
                    place = os.path.join(places[root], rest) if rest else places[root]
                    opts += [f"DATASETS.REGISTER.{name}.{key}", place]
        return load_config(str(study.config), opts)

    def facts(self, cfg: CfgNode, study: Study) -> dict:
        """What a record says of them."""
        facts: dict = {}
        for split, names in (("train", cfg.DATASETS.TRAIN), ("test", cfg.DATASETS.TEST)):
            records = [record for name in names for record in DatasetCatalog.get(name)]
            boxes = sum(len(record["annotations"]) for record in records)
            facts[split] = {"name": ", ".join(names), "images": len(records), "boxes": boxes}
        if WEIGHTS in study.data:
            content = Path(self.find(WEIGHTS)).read_bytes()
            facts["weights"] = f"{WEIGHTS} sha256 {hashlib.sha256(content).hexdigest()[:16]}"
        return facts
