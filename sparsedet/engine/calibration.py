"""Old places; see the changelog."""

from ..moved import finder

INSTEAD = "sparsedet.DetectionTask, or images= of sparsedet.compress_"

__getattr__ = finder(
    __name__,
    {name: (f"sparsedet.moved:{name}", INSTEAD) for name in ("load_images", "run_detector")},
)
