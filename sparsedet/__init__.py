"""Smaller, faster detectors on detectron2 by fusing sparse, complementary convolutions.

Importing this package registers its backbones and heads in detectron2.
"""

import importlib.util
import warnings

__version__ = "0.1.0"

# detectron2 compiles small helpers with it at import; nothing that a user could act on.
warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)

if importlib.util.find_spec("detectron2") is None:
    warnings.warn(
        "sparsedet: detectron2 is not installed, so only sparsedet.runtime, .kernels, .layers and "
        ".compress work; get it by `python tools/install/install_detectron2.py`",
        stacklevel=2,
    )
else:
    from . import modeling  # noqa: F401  registers
    from .config import add_sparsedet_config
    from .detection.config import load_config

    __all__ = ["add_sparsedet_config", "load_config"]
