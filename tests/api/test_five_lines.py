"""The five lines of the README, word for word, from a checkpoint to detections in a photo."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

import sparsedet
from sparsedet.compress import layer_times

README = Path(__file__).parents[2] / "README.md"


def test_from_a_checkpoint_to_detections(kitchen, picture, tmp_path, monkeypatch, capsys):
    (lines,) = re.findall(
        r"```python\n(import sparsedet\n+model = .*?)```", README.read_text(), re.S
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layer_times, "SECONDS", 0)
    (tmp_path / "dense").symlink_to(kitchen)
    (kitchen / "model_final.pth").write_bytes((kitchen / "model.pth").read_bytes())
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        Image.fromarray(picture(64, 96, seed)).save(tmp_path / "photos" / f"{seed}.png")
    Image.fromarray(picture(64, 96, 9)).save(tmp_path / "photo.jpg")
    # A detector this small has no 12.4 times to give.
    lines = lines.replace("params=12.4, flops=3", "params=2.5, flops=2")
    scope = {}
    exec(lines, scope)
    assert {p.name for p in (tmp_path / "compact").iterdir()} == {
        "config.yaml", "last_checkpoint", "model.pth", "plan.yaml", "layers.png",
        "report.html", "report.md",
    }  # fmt: skip
    assert (tmp_path / "compact.onnx").is_file()
    assert capsys.readouterr().out.startswith("parameters (millions): ")
    found = scope["found"]
    assert isinstance(found, sparsedet.Detections) and found.boxes.dtype == np.float32
