"""Old places; see the changelog."""

from ..moved import finder

__getattr__ = finder(
    __name__,
    {
        "Predictor": ("sparsedet.detection.predictor:Predictor", "sparsedet.Predictor"),
        "Trainer": ("sparsedet.training.trainer:Trainer", "sparsedet.training.trainer.Trainer"),
        "optimize_for_inference": (
            "sparsedet.exporting.optimize:optimize_for_inference",
            "sparsedet.optimize_for_inference",
        ),
    },
)
