"""What a compression did to each layer."""

from __future__ import annotations

from dataclasses import dataclass

from .plan import LayerPlan


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        weights: (before, after); these are also its multiply-adds at one output position.
        outputs: output positions in one batch of calibration, the mean of a few.
        error: mean square error of the layer's output, before norm and activation, on the
            calibration data, as a share of the output's variance, in the layer's
            :class:`Metric`. Its input comes from the compressed layers below, so their errors are
            in it. None: not measured.
        error_alone: the same for the projection of the weights alone, on the same input.
        samples: number of output positions that were looked at.
        note: what the reader should know; mostly empty.
    """

    plan: LayerPlan
    weights: tuple[int, int]
    outputs: float = 0.0
    error: float | None = None
    error_alone: float | None = None
    samples: int = 0
    note: str = ""

    @property
    def multiply_adds(self) -> tuple[float, float]:
        """(before, after), for one batch of calibration."""
        before, after = self.weights
        return self.outputs * before, self.outputs * after


@dataclass(frozen=True)
class Report:
    """The layers by name, in the order in which they run, and (before, after) of the whole model.

    Multiply-adds are those of convolutions and fully connected layers in one batch of calibration.
    """

    layers: dict[str, LayerReport]
    parameters: tuple[int, int]
    multiply_adds: tuple[float, float]
