"""Datasets named in the config, registered in detectron2's catalogs."""

from __future__ import annotations

import difflib
from functools import cache
from itertools import combinations

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import InputError
from .entries import parse_entry, read_classes
from .sources import Source


def register_datasets(cfg: CfgNode) -> None:
    """Register `cfg.DATASETS.REGISTER`, then check the names in DATASETS.TRAIN and .TEST.

    Nothing but the names of classes that are not given is read before the dataset is used. They
    are written into `cfg` (if it is not frozen): a config saved beside a checkpoint then names the
    classes on a machine without the dataset. Registering the same again changes nothing.

    Raises:
        InputError: a field is missing, unknown or of the wrong type; two shares of the same
            images overlap; a name belongs to a dataset that was not registered here; a name in
            TRAIN or TEST is not registered.
    """
    sources = {}
    read = cache(read_classes)  # the splits of a folder have the classes of all of it
    for name, entry in cfg.DATASETS.REGISTER.items():
        source = sources[name] = parse_entry(name, entry, read=read)
        if source.classes and not cfg.is_frozen():
            entry["classes"] = list(source.classes)
    for one, other in combinations(sources.values(), 2):
        if one.overlaps(other):
            raise InputError(
                f"DATASETS.REGISTER: {one.name} and {other.name} have images in common, for "
                f"{one.split} and {other.split} are more than all; make it 1 together"
            )
    for source in sources.values():
        _register(source)
    known = DatasetCatalog.list()
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=3)
                hint = f"did you mean {' or '.join(close)}?" if close else "name it there"
                raise InputError(
                    f"DATASETS.{key}: {name!r} is not registered, neither by detectron2 nor in "
                    f"DATASETS.REGISTER; {hint}"
                )


def _register(source: Source) -> None:
    name = source.name
    if name in DatasetCatalog:
        known = DatasetCatalog[name]
        if known == source:
            return
        if not isinstance(known, Source):
            raise InputError(
                f"DATASETS.REGISTER.{name}: there is a dataset of this name already, which was "
                f"not registered from a config; choose another name"
            )
        DatasetCatalog.remove(name)
    MetadataCatalog.pop(name, None)  # metadata refuses to change
    DatasetCatalog.register(name, source)
    MetadataCatalog.get(name).set(**source.metadata())
