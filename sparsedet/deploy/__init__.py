"""Export, and running the exported file without detectron2 or torch.

Importing this package imports neither; sparsedet.deploy.export does.
"""

from .runtime import Detections, Detector

__all__ = ["Detections", "Detector"]
