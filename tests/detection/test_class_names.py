"""Classes are matched by name between training sets, test sets, checkpoints and exported files."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from PIL import Image

from sparsedet import Predictor, compress_, export, load_config, load_model
from sparsedet.checkpoint import SparseDetCheckpointer, stored_class_names
from sparsedet.errors import InputError
from sparsedet.exporting.evaluate import evaluate_export
from sparsedet.runtime.detector import Detector
from sparsedet.training.trainer import Trainer

CLASSES = ["cup", "plate", "spoon"]
OTHER_ORDER = ["spoon", "cup", "plate"]
OTHERS = ["cup", "plate", "fork"]


@pytest.fixture(scope="module")
def photos(kitchen, picture, tmp_path_factory):
    """Images, and a COCO json of each order of the classes, of what a detector nearly finds."""
    folder = tmp_path_factory.mktemp("photos")
    predictor = Predictor(load_config(str(kitchen / "config.yaml")))
    rng = np.random.default_rng(0)
    images, objects = [], []
    for i in range(6):
        image = picture(48, 80, i)
        Image.fromarray(image).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 48, "width": 80})
        found = predictor.detect(image[:, :, ::-1], CLASSES)
        for (x0, y0, x1, y1), name in zip(found.boxes[1::2].tolist(), found.names[1::2]):
            box = [x0, y0, max(x1 - x0, 2.0), max(y1 - y0, 2.0)]
            box = (np.array(box) + rng.normal(0, 0.5, 4)).clip(0).tolist()
            box[2:] = min(max(box[2], 1), 80 - box[0]), min(max(box[3], 1), 48 - box[1])
            objects.append((i, name, box))
    for key, names in (("same", CLASSES), ("moved", OTHER_ORDER), ("other", OTHERS)):
        truth = {
            "images": images,
            "categories": [{"id": 2 * i + 1, "name": name} for i, name in enumerate(names)],
            "annotations": [
                {"id": n, "image_id": i, "category_id": 2 * names.index(name) + 1, "bbox": box}
                for n, (i, name, box) in enumerate(objects, 1)
                if name in names
            ],
        }
        (folder / f"{key}.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture
def configured(kitchen, photos, tmp_path):
    """A config of the kitchen's detector, trained and tested on these json files."""

    def make(train, test, weights, *opts):
        register = {
            key: {"format": "coco", "json": str(photos / f"{key}.json"), "images": str(photos)}
            for key in {*train, *test}
        }
        config = {
            "_BASE_": str(kitchen / "config.yaml"),
            "DATASETS": {"TRAIN": train, "TEST": test, "REGISTER": register},
            "DATALOADER": {"NUM_WORKERS": 0},
            "INPUT": {"MIN_SIZE_TRAIN": [64], "RANDOM_FLIP": "none"},
            "SOLVER": {"IMS_PER_BATCH": 2},
            "MODEL": {"WEIGHTS": str(weights)},
            "OUTPUT_DIR": str(tmp_path / "out"),
        }
        path = tmp_path / "_".join(["config", *train, *test, ".yaml"])
        path.write_text(yaml.safe_dump(config))
        return load_config(str(path), opts)

    return make


@pytest.fixture
def named(kitchen, tmp_path):
    """The kitchen's checkpoint, with the names of its classes, and another."""
    checkpoint = torch.load(kitchen / "model.pth", weights_only=True)
    for name, classes in (("named", CLASSES), ("moved", OTHER_ORDER)):
        torch.save({**checkpoint, "class_names": classes}, tmp_path / f"{name}.pth")
    return tmp_path / "named.pth"


def same_results(found, expected):
    for task, numbers in expected.items():
        assert found[task] == pytest.approx(numbers, abs=1e-9, nan_ok=True)


def test_a_test_set_in_another_order_gives_the_same_accuracy(configured, named):
    results = {}
    for key in ("same", "moved"):
        cfg = configured([], [key], named)
        results[key] = Trainer.test(cfg, load_model(cfg))
    assert 20 < results["same"]["bbox"]["AP50"] < 95
    assert len({results["same"]["bbox"][f"AP-{name}"] for name in CLASSES}) == 3
    same_results(results["moved"], results["same"])


def test_by_position_it_would_not(configured, kitchen):
    """A checkpoint of an earlier version does not say its classes: all is as it was."""
    results = {}
    for key in ("same", "moved"):
        cfg = configured([], [key], kitchen / "model.pth")
        results[key] = Trainer.test(cfg, load_model(cfg))["bbox"]["AP50"]
    assert results["moved"] < results["same"] - 10


def test_in_training_as_well(configured, kitchen):
    """What is trained on one order is tested on another."""
    results = {}
    for key in ("same", "moved"):
        cfg = configured(["same"], [key], kitchen / "model.pth")
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        results[key] = Trainer.test(cfg, trainer.model)
    same_results(results["moved"], results["same"])
    trainer.checkpointer.save("saved")
    path = f"{cfg.OUTPUT_DIR}/saved.pth"
    assert stored_class_names(path) == CLASSES == load_model(cfg, path).class_names


def test_evaluators_of_a_subclass_count(configured, named):
    """As detectron2 has it: who overrides build_evaluator is asked, whatever the tests are."""

    class Counted(DatasetEvaluator):
        images = 0

        def process(self, inputs, outputs):
            self.images += len(inputs)

        def evaluate(self):
            return {"own": {"images": self.images}}

    class Own(Trainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name, output_folder=None):
            return Counted()

    cfg = configured([], ["moved"], named)
    results = Own.test(cfg, load_model(cfg))
    assert results == {"own": {"images": len(DatasetCatalog.get("moved"))}}


def labels(trainer, batches=20):
    """Which names the objects of each image have, as the model is taught them."""
    taught = {}
    iterator = iter(trainer.data_loader)
    for _ in range(batches):
        for image in next(iterator):
            names = [trainer.model.class_names[c] for c in image["instances"].gt_classes]
            taught[image["image_id"]] = sorted(names)
    return taught


def truth(photos, key):
    content = json.loads((photos / f"{key}.json").read_text())
    names = {row["id"]: row["name"] for row in content["categories"]}
    found = {}
    for row in content["annotations"]:
        found.setdefault(row["image_id"], []).append(names[row["category_id"]])
    return {image_id: sorted(values) for image_id, values in found.items()}


@pytest.mark.parametrize("train", [["same", "moved"], ["moved", "same"]])
def test_training_sets_of_different_orders_are_put_together_by_name(
    configured, photos, kitchen, train
):
    trainer = Trainer(configured(train, [], kitchen / "model.pth"))
    assert trainer.model.class_names == (CLASSES if train[0] == "same" else OTHER_ORDER)
    assert labels(trainer) == truth(photos, "same")


def test_training_goes_on_in_the_order_of_the_weights(configured, named, photos):
    trainer = Trainer(configured(["moved"], ["moved"], named))
    trainer.resume_or_load(resume=False)
    assert trainer.model.class_names == CLASSES
    assert labels(trainer) == truth(photos, "moved")


def test_weights_for_other_classes_are_a_start(configured, named, caplog):
    trainer = Trainer(configured(["other"], ["other"], named))
    trainer.resume_or_load(resume=False)
    assert trainer.model.class_names == OTHERS
    assert "trained for the classes cup, plate, spoon" in caplog.text


def test_a_run_resumes_only_with_its_own_classes(configured, kitchen, tmp_path):
    trainer = Trainer(configured(["same"], [], kitchen / "model.pth"))
    trainer.checkpointer.save("model_0000001", iteration=1)
    for key in ("moved", "other"):
        other = Trainer(configured([key], [], kitchen / "model.pth"))
        with pytest.raises(InputError, match="model_0000001.pth: trained for the classes cup, pl"):
            other.resume_or_load(resume=True)


def test_sets_of_other_classes_are_refused_before_training(configured, kitchen):
    message = "the model's classes are cup, plate, spoon, but those of other are cup, plate, fork"
    for train, test in ((["same", "other"], []), (["same"], ["other"])):
        with pytest.raises(InputError, match=message):
            Trainer(configured(train, test, kitchen / "model.pth"))


def test_what_is_found_is_called_as_in_the_checkpoint(configured, named, photos, picture):
    image = picture(48, 80, 1)[:, :, ::-1]
    found = {}
    for key in ("same", "moved"):
        cfg = configured([], [key], named)
        model = load_model(cfg)
        assert model.class_names == Predictor.of(model).metadata.thing_classes == CLASSES
        path = named.parent / f"{key}.onnx"
        export(model, path, images=photos)
        assert Detector(path).info.class_names == CLASSES
        found[key] = Detector(path)(image).names
    assert found["same"] == found["moved"] and len(set(found["same"])) > 1


def test_demo_names_as_the_checkpoint_does(configured, named, photos, run_tool, tmp_path):
    found = {}
    for key in ("same", "moved"):
        configured([], [key], named)
        config, output = tmp_path / f"config_{key}_.yaml", tmp_path / key
        arguments = ["--config-file", config, "--input", photos, "--output", output]
        assert run_tool("demo.py", *arguments)[0] == 0
        found[key] = json.loads((output / "detections.json").read_text())
    assert found["same"] == found["moved"]
    assert len({d["class"] for image in found["same"] for d in image["detections"]}) > 1


def test_an_exported_file_in_another_order_than_the_test_set(configured, named, photos):
    numbers = {}
    for key in ("same", "moved"):
        cfg = configured([], [key], named)
        predictor = Predictor(cfg)
        export(predictor.model, named.parent / "model.onnx", images=photos)
        numbers[key] = evaluate_export(predictor, Detector(named.parent / "model.onnx"), key)
    assert numbers["moved"][:2] == numbers["same"][:2]
    assert numbers["moved"][2].unmatched == 0


def test_other_classes_are_refused_in_one_line(configured, named, photos, run_tool, tmp_path):
    cfg = configured([], ["other"], named)
    message = "named.pth: the model's classes are cup, plate, spoon, but those of other are cup, "
    for load in (load_model, Predictor):
        with pytest.raises(InputError, match=message):
            load(cfg)
    config = ["--config-file", tmp_path / "config_other_.yaml"]
    for tool, *arguments in (
        ("demo.py", *config, "--input", photos, "--output", tmp_path / "found"),
        ("export_model.py", *config, "--output", tmp_path / "model.onnx"),
        ("train_net.py", *config, "--eval-only"),
        (
            "compress.py",
            *config,
            "--images",
            photos,
            "--target-params",
            "2x",
            "--output",
            tmp_path / "x",
        ),
    ):
        status, lines = run_tool(tool, *arguments)
        assert status == 1 and lines[-1].startswith("error: "), tool
        assert "classes are cup, plate, spoon, but those of other are cup, plate, fork" in lines[-1]
    assert not (tmp_path / "model.onnx").exists() and not (tmp_path / "x").exists()


def test_a_compressed_model_keeps_the_names(configured, named, photos, tmp_path):
    model = load_model(configured([], ["moved"], named))
    plan = {"backbone.conv5_1": {"pattern": "rows", "ratio": 2}}
    compress_(model, images=photos, num_images=2, plan=plan).save(tmp_path / "compact")
    compact = load_model(tmp_path / "compact" / "config.yaml")
    assert compact.class_names == CLASSES


def test_names_that_are_none_are_refused(kitchen, tmp_path, configured):
    checkpoint = torch.load(kitchen / "model.pth", weights_only=True)
    for bad in ("cup", [1, 2, 3], []):
        torch.save({**checkpoint, "class_names": bad}, tmp_path / "bad.pth")
        with pytest.raises(InputError, match="bad.pth: its class_names is not a list of names"):
            load_model(configured([], ["same"], tmp_path / "bad.pth"))
    torch.save({**checkpoint, "class_names": CLASSES[:2]}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="bad.pth: .*NUM_CLASSES is 3, but class_names in the"):
        load_model(configured([], ["same"], tmp_path / "bad.pth"))
    with pytest.raises(InputError, match="DATASETS.TRAIN is empty"):
        Trainer(configured([], ["same"], kitchen / "model.pth"))
    shutil.copy(kitchen / "model.pth", tmp_path / "old.pth")
    model = load_model(configured([], ["same"], tmp_path / "old.pth"))
    SparseDetCheckpointer(model, str(tmp_path)).save("again")
    assert "class_names" not in torch.load(tmp_path / "again.pth", weights_only=True)
