"""What `import sparsedet` costs, and what its names stand for."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import sparsedet

ROOT = Path(__file__).parents[2]


def fresh(code):
    """What a new process prints that runs ``code``."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_import_loads_no_library_and_changes_no_warnings_filter():
    loaded = fresh(
        "import sys, warnings; filters = list(warnings.filters); import sparsedet; "
        "assert warnings.filters == filters; print(*sys.modules)"
    ).split()
    assert "sparsedet" in loaded
    assert not {"torch", "detectron2", "numpy", "cv2"} & set(loaded)


def test_import_is_quick():
    code = (
        "from time import perf_counter; start = perf_counter(); import sparsedet; "
        "print(perf_counter() - start)"
    )
    assert statistics.median(float(fresh(code)) for _ in range(5)) < 0.3


def test_any_module_is_compressed_without_detectron2(tmp_path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['detectron2', 'fvcore', 'yacs', 'cv2']));"
        "import sparsedet, torch; from torch import nn;"
        "model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3));"
        "batches = [torch.rand(2, 3, 16, 16) for _ in range(4)];"
        "result = sparsedet.compress_(model, batches=batches, params=2);"
        f"result.save({str(tmp_path / 'compact')!r}); print(result)"
    )
    assert fresh(code).startswith("parameters (millions): ")
    assert (tmp_path / "compact" / "report.md").is_file()


def test_the_clock_needs_no_torch():
    code = "import sys; from sparsedet.timing import now; print(now() > 0, 'torch' in sys.modules)"
    assert fresh(code).split() == ["True", "False"]


@pytest.mark.parametrize("name", sparsedet.__all__)
def test_every_name_stands_for_something(name):
    assert getattr(sparsedet, name) is not None
    assert name in dir(sparsedet)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'sparsedet' has no attribute 'no_such_name'"):
        sparsedet.no_such_name  # noqa: B018
    assert not hasattr(sparsedet, "no_such_name")


@pytest.mark.parametrize("name", ["add_sparsedet_config", "load_config"])
def test_detectron2_knows_the_models_once_their_config_is_asked_for(name):
    code = (
        "import sparsedet; from detectron2.modeling import BACKBONE_REGISTRY as known; "
        f"before = 'build_sparse_vgg_backbone' in known; sparsedet.{name}; "
        "print(before, 'build_sparse_vgg_backbone' in known)"
    )
    assert fresh(code).split() == ["False", "True"]
