"""What to install where a library is missing."""

from __future__ import annotations

import importlib
import os
import traceback
from types import ModuleType

from .errors import InputError

# A module to the extra of setup.py that brings it.
EXTRAS = {
    "PIL": "deploy",
    "cv2": "deploy",
    "flask": "web",
    "h5py": "train",
    "matplotlib": "train",
    "numpy": "deploy",
    "onnx": "train",
    "onnxruntime": "deploy",
    "openvino": "openvino",
    "ray": "ray",
    "safetensors": "train",
    "tabulate": "train",
    "torch_pruning": "prune",
    "tqdm": "deploy",
    "yaml": "train",
}
TORCH = "needs PyTorch: pip install torch torchvision"
DETECTRON2 = (
    "needs detectron2: build it from source, or run tools/install/install_detectron2.py of "
    "sparsedet's repository"
)
# What no extra brings: pip would take one build of torch of many, and has no detectron2, with which
# the others come; timm brings a client of Hugging Face, which nothing else here needs.
OTHERS = {
    "lvis": "needs lvis: pip install --no-deps lvis; what it lists would be a second OpenCV",
    "torch": TORCH,
    "torchvision": TORCH,
    "timm": "needs timm: pip install timm",
    **dict.fromkeys(("detectron2", "fvcore", "yacs"), DETECTRON2),
}


def require(module: str, what: str) -> ModuleType:
    """Import a library that ``what`` needs.

    Raises:
        InputError: it is missing, and what brings it; or it is there and fails.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        lack = needs(error) or f"needs {module}, which cannot be imported: {error}"
        raise InputError(f"{what} {lack}") from error


def needs(error: ImportError) -> str | None:
    """Of a library that is missing, as 'needs openvino: pip install "sparsedet[openvino]"'.

    Or of OpenCV with windows on a machine without a display. None for any other error, and for a
    library that is in no table.
    """
    if "cannot open shared object file" in str(error) and _imports(error, "cv2"):
        library = str(error).partition(":")[0]
        return (
            f"needs OpenCV without windows, for there is no {library} here: "
            "pip uninstall opencv-python; pip install --force-reinstall opencv-python-headless"
        )
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    if error.name in EXTRAS:
        return f'needs {error.name}: pip install "sparsedet[{EXTRAS[error.name]}]"'
    return OTHERS.get(error.name)


def _imports(error: ImportError, name: str) -> bool:
    """Whether it was raised as the package ``name`` was imported."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(f"{os.sep}{name}{os.sep}" in frame.filename for frame in frames)
