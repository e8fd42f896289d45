"""Find objects by what a classifier looks at: class activation maps, their boxes and errors.

    sparsedet localize --config-file dense/config.yaml compact/config.yaml \\
        --weights dense/model_final.pth compact/model.pth --output found

The data set is the first of the first config's DATASETS.TEST, and must have boxes (format voc, coco
or yolo); an image's class is that of its largest box. Networks that end in global average pooling
and one linear layer have such maps: vgg16_gap, googlenet, resnet50 and many others.

The new folder --output gets localization.json, with the errors that ILSVRC defines in percent, and
maps.png, the maps and boxes (red; true ones white) of some images, model beside model.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from ..checkpoint import model_class_names
from ..classification.localization import Located, errors, localize
from ..classification.records import labelled_records
from ..compress import count_parameters
from ..data.class_order import dataset_classes
from ..detection.config import load_config
from ..detection.load import load_model
from ..errors import InputError
from ..files import new_folder
from ..images import read_image
from ..modeling import ImageClassifier
from ..reports.localization import Map, draw_maps
from ..reports.tables import pipe_table
from .arguments import positive

COLUMNS = {
    "class top1": "top-1",
    "class top5": "top-5",
    "top1": "localization top-1",
    "top5": "localization top-5",
    "known": "localization, class known",
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--weights", nargs="+", metavar="FILE", help="default: the configs' own")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="default: the configs' folders")
    parser.add_argument("--pictures", type=positive, default=4, metavar="N")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    args = parser.parse_args()
    for name in ("weights", "names"):
        given = getattr(args, name)
        if given and len(given) != len(args.config_file):
            parser.error(f"--{name}: give one for each --config-file")
    folders = [os.path.basename(os.path.dirname(os.path.abspath(f))) for f in args.config_file]
    args.names = args.names or folders
    if len(set(args.names)) < len(args.names):
        parser.error("--names: give each model a name of its own")
    return args


def main() -> None:
    """The command."""
    args = parse_args()
    configs = [load_config(path) for path in args.config_file]
    if not configs[0].DATASETS.TEST:
        raise InputError(f"{args.config_file[0]}: DATASETS.TEST is empty; name a data set")
    dataset = configs[0].DATASETS.TEST[0]
    report, maps, rows = {}, {}, []
    with new_folder(args.output) as folder:
        for name, cfg, file in zip(args.names, configs, args.weights or [None] * len(configs)):
            model = load_model(cfg, file)
            if not isinstance(model, ImageClassifier):
                raise InputError(f"{name}: a {type(model).__name__}, which classifies no images")
            classes = model_class_names(model) or dataset_classes(dataset)
            records = labelled_records(dataset, classes)
            found = list(localize(model, records))
            wrong, size = errors(found), count_parameters(model)
            report[name] = {"parameters": size, "images": len(records), **wrong}
            rows.append([name, f"{size / 1e6:.2f} M", *(f"{wrong[key]:.2f}" for key in COLUMNS)])
            shown = range(0, len(records), -(-len(records) // args.pictures))
            maps[name] = [map_of(found[i], classes) for i in shown]
        with open(os.path.join(folder, "localization.json"), "w", encoding="utf-8") as file:
            json.dump({"dataset": dataset, "errors": report}, file, indent=1)
        images = [read_image(records[i]["file_name"], "RGB") for i in shown]
        truths = [records[i]["boxes"] for i in shown]
        draw_maps(images, truths, maps, os.path.join(folder, "maps.png"))
    print(pipe_table(["error, percent", "parameters", *COLUMNS.values()], rows))
    print(f"{args.output}: see maps.png there")


def map_of(found: Located, classes: Sequence[str]) -> Map:
    """What is drawn of one image: the class that comes first."""
    return Map(found.heat, found.boxes[0], classes[found.classes[0]])
