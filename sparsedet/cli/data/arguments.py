"""Which data sets a command is about: of a config, or described by arguments."""

from __future__ import annotations

import argparse
import os

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...data.entries import parse_entry
from ...data.shares import SHARES, Share
from ...data.sources import CocoSource, Source, VocSource
from ...data.voc_files import find_splits
from ...data.yolo_files import read_data_yaml
from ...detection.config import load_config
from ...errors import InputError

USAGE = """
The data sets are those of a config, or of detectron2, by name:
    --config-file birds.yaml [--dataset birds_train ...]
or described here, with the fields of DATASETS.REGISTER:
    --format voc --root birds [--split train ... | --split train=0.8 test=0.2]
    --format yolo --root birds [--split train ...]
    --format coco --json birds.json --images birds
"""


def dataset_parser(doc: str) -> argparse.ArgumentParser:
    """A parser with the arguments that :func:`chosen` reads; ``doc`` is its --help."""
    parser = argparse.ArgumentParser(
        description=doc, epilog=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", metavar="FILE")
    parser.add_argument(
        "--dataset", nargs="+", metavar="NAME", help="else all that it trains and tests on"
    )
    parser.add_argument("--format", choices=("voc", "coco", "yolo"))
    parser.add_argument("--root", metavar="DIR")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--images", metavar="DIR")
    parser.add_argument("--split", nargs="+", metavar="NAME", help="else all that it has")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="else those it has")
    return parser


def chosen(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Source]:
    """The data sets that the arguments name, by the names of their splits.

    Raises:
        InputError: there is no such data set, or a field is missing or wrong.
    """
    if args.format:
        return _described(args)
    if args.config_file:
        cfg = load_config(args.config_file)
        names = args.dataset or [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    elif args.dataset:
        names = args.dataset
    else:
        parser.error("name data sets: --config-file, --dataset or --format")
    return {name: _registered(name) for name in dict.fromkeys(names)}


def _described(args: argparse.Namespace) -> dict[str, Source]:
    entry = {"format": args.format, "classes": args.classes}
    for field in ("root", "json", "images"):
        value = getattr(args, field)
        entry[field] = value and os.path.abspath(value)
    entry = {key: value for key, value in entry.items() if value is not None}
    sources = {}
    for name in args.split or _splits(args):
        field = {"split": _split(name)} if name else {}
        part = name.partition("=")[0] or "all"
        sources[part] = parse_entry(part, {**entry, **field}, key="--")
    return sources


def _split(name: str) -> str | dict[str, float]:
    share, mark, size = name.partition("=")
    try:
        return {share: float(size)} if mark else name
    except ValueError:
        raise InputError(f"--split {name}: expected a name, or such as train=0.8") from None


def _splits(args: argparse.Namespace) -> list[str]:
    """All that the data has; [""] where it is one whole."""
    if args.format == "voc" and args.root and os.path.isdir(args.root):
        return find_splits(args.root) or [""]
    if args.format == "yolo" and args.root:
        return list(read_data_yaml(args.root).splits)
    return [""]


def _registered(name: str) -> Source:
    if name not in DatasetCatalog:
        raise InputError(f"--dataset {name}: not registered, neither by detectron2 nor by a config")
    source, metadata = DatasetCatalog[name], MetadataCatalog.get(name)
    if isinstance(source, Source):
        return source
    if hasattr(metadata, "json_file"):
        return CocoSource(name=name, json=metadata.json_file, images=metadata.image_root)
    if hasattr(metadata, "dirname"):
        classes = tuple(metadata.thing_classes)
        return VocSource(name=name, root=metadata.dirname, split=metadata.split, classes=classes)
    raise InputError(f"--dataset {name}: neither VOC nor COCO, so what it reads is not known")


def part_name(name: str, source: Source) -> str:
    """What a data set is called beside others of the same data: train, val, test."""
    if isinstance(source.split, Share):
        return source.split.name
    return source.split or next((share for share in SHARES if share in name), name)
