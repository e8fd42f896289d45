"""The region proposal head with its convolution as a sparse fusion."""

from detectron2.config import configurable
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY, StandardRPNHead

from .by_config import RPN_HEAD, sparsify_by_config


@RPN_HEAD_REGISTRY.register()
class SparseRPNHead(StandardRPNHead):
    """``StandardRPNHead`` after the surgery that ``MODEL.SPARSE_FUSION`` plans."""

    @configurable
    def __init__(self, *, cfg, **kwargs):
        super().__init__(**kwargs)
        sparsify_by_config(self, cfg, RPN_HEAD)

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"cfg": cfg, **super().from_config(cfg, input_shape)}
