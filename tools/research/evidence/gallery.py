"""Pictures for docs/gallery.md, of the models that are in a folder of work."""

from __future__ import annotations

import shutil
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from sparsedet.detection.config import load_config
from sparsedet.detection.predictor import Predictor
from sparsedet.files import replacing
from sparsedet.images import read_image
from sparsedet.reports.pictures import draw_detections

from .bench import MODEL
from .plots import plot_sizes
from .records import read_records
from .studies import ROOT, Row, queue, read_rows

FOLDER = ROOT / "docs" / "images" / "gallery"
SHOWN = ("dense", "compact-12.4x", "finetuned-12.4x")
PUBLIC = ("shapes-vgg11", "bccd-vgg16", "raccoon-vgg16")  # pictures that may be shown
PICTURES = 2
WIDTH = 1400  # pixels
LEAST_SCORE = 0.5


def draw_gallery(work: Path, folder: Path = FOLDER) -> list[Path]:
    """Draw what there are models for; the files that were written."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_rows()
    records = read_records(queue(rows))
    written = []
    if records:
        written.append(folder / "sizes.png")
        plot_sizes(rows, records, str(written[0]))
    for study in PUBLIC:
        shown = {row.name: row for row in rows[study] if row.seed == 1 and row.name in SHOWN}
        done = {name: row for name, row in shown.items() if (work / row.folder / MODEL).exists()}
        if len(done) > 1:
            written += _detections(work, done, folder, study)
        layers = work / shown["compact-12.4x"].folder / "compact" / "layers.png"
        if layers.exists():
            written.append(Path(shutil.copyfile(layers, folder / f"{study}-layers.png")))
    return written


def _detections(work: Path, rows: dict[str, Row], folder: Path, study: str) -> list[Path]:
    configs = {name: load_config(str(work / row.folder / MODEL)) for name, row in rows.items()}
    predictors = {name: Predictor(cfg) for name, cfg in configs.items()}
    dataset = next(iter(configs.values())).DATASETS.TEST[0]
    names = MetadataCatalog.get(dataset).thing_classes
    records = DatasetCatalog.get(dataset)
    written = []
    for i, record in enumerate(records[:: len(records) // PICTURES][:PICTURES], start=1):
        image = read_image(record["file_name"])
        found = {}
        for name, predictor in predictors.items():
            instances = predictor(image)["instances"].to("cpu")
            found[name] = instances[instances.scores >= LEAST_SCORE]
        picture = Image.fromarray(
            draw_detections(image, found, record["annotations"], names)[:, :, ::-1]
        )
        picture.thumbnail((WIDTH, WIDTH))
        path = folder / f"{study}-{i}.jpg"
        with replacing(str(path)) as temporary:
            picture.save(temporary, format="JPEG", quality=85)
        written.append(path)
    return written
