"""Pictures for docs/gallery.md, of the models that are in a folder of work."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from sparsedet.detection.config import load_config
from sparsedet.detection.predictor import Predictor
from sparsedet.files import replacing
from sparsedet.images import read_image
from sparsedet.reports.pictures import draw_detections, side_by_side

from .bench import MODEL
from .plots import plot_sizes
from .records import read_records
from .studies import ROOT, Row, queue, read_rows

FOLDER = ROOT / "docs" / "images" / "gallery"
SHOWN = ("dense", "compact-12.4x", "finetuned-12.4x")
PUBLIC = ("shapes-vgg11", "bccd-vgg16", "raccoon-vgg16")  # pictures that may be shown
PICTURES = 2
WIDTH = 1600  # pixels
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
            written += _pictures(work, done, folder, study)
        layers = work / shown["compact-12.4x"].folder / "compact" / "layers.png"
        if layers.exists():
            written.append(Path(shutil.copyfile(layers, folder / f"{study}-layers.png")))
    return written


def _pictures(work: Path, rows: dict[str, Row], folder: Path, study: str) -> list[Path]:
    """Of every model beside each other: detections, and activations in the first picture."""
    configs = {name: load_config(str(work / row.folder / MODEL)) for name, row in rows.items()}
    predictors = {name: Predictor(cfg) for name, cfg in configs.items()}
    dataset = configs["dense"].DATASETS.TEST[0]
    names = MetadataCatalog.get(dataset).thing_classes
    records = DatasetCatalog.get(dataset)
    written = []
    for i, record in enumerate(records[:: len(records) // PICTURES][:PICTURES], start=1):
        image = read_image(record["file_name"])
        found = {}
        for name, predictor in predictors.items():
            instances = predictor(image)["instances"].to("cpu")
            found[name] = instances[instances.scores >= LEAST_SCORE]
        picture = draw_detections(image, found, record["annotations"], names)
        written.append(_save(picture, folder / f"{study}-{i}.jpg"))
        if i == 1:
            maps = {name: activations(predictor, image) for name, predictor in predictors.items()}
            picture = side_by_side({"image": image, **maps})
            written.append(_save(picture, folder / f"{study}-activations.jpg"))
    return written


@torch.no_grad()
def activations(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    """Mean absolute value of the trunk's coarsest feature map, as colours in the image's size.

    Args:
        image: (H, W, 3) uint8, BGR.
    """
    seen = image[:, :, ::-1] if predictor.input_format == "RGB" else image
    resized = predictor.aug.get_transform(seen).apply_image(seen)
    pixels = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)).astype("float32"))
    images = predictor.model.preprocess_image([{"image": pixels}])
    features = predictor.model.backbone(images.tensor)
    strength = list(features.values())[-1][0].abs().mean(0).cpu().numpy()
    strength = (strength - strength.min()) / max(float(np.ptp(strength)), 1e-9)
    colors = (255 * matplotlib.colormaps["viridis"](strength)[:, :, :3]).astype(np.uint8)
    height, width = image.shape[:2]
    large = Image.fromarray(colors).resize((width, height), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(large)[:, :, ::-1])


def _save(picture: np.ndarray, path: Path) -> Path:
    """As a JPEG of no more than WIDTH."""
    image = Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]))
    image.thumbnail((WIDTH, WIDTH))
    with replacing(str(path)) as temporary:
        image.save(temporary, format="JPEG", quality=85)
    return path
