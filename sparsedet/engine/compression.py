"""Old places; see the changelog."""

from ..moved import finder

OLD = ("answer_metrics", "plan_compression", "predictors")

__getattr__ = finder(
    __name__,
    {
        "load_model": ("sparsedet.detection.load:load_model", "sparsedet.load_model"),
        **{name: (f"sparsedet.moved:{name}", "sparsedet.compress_") for name in OLD},
    },
)
