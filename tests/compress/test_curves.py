"""The choices of ranks among which a plan is made."""

import torch
from torch import nn

from sparsedet.compress.curves import linear_options


def test_ranks_of_fully_connected_layers_are_close_to_each_other():
    """With steps of 16, between 16 and 32 a half of the layer's cost could not be chosen."""
    layer = nn.Linear(1000, 500)
    decay = 0.99
    covariance = torch.diag(decay ** torch.arange(500.0, dtype=torch.double))
    dense, *options = linear_options(layer, covariance)
    assert dense.plan is None
    ranks = [option.plan.ranks[0] for option in options]
    assert ranks == sorted(set(ranks), reverse=True)
    assert all(rank % 4 == 0 for rank in ranks if rank >= 8)
    assert all(more - less <= max(4, 0.25 * more) for more, less in zip(ranks, ranks[1:]))
    for option, rank in zip(options, ranks):
        assert option.weights == 1500 * rank
        # What is cut off of a geometric series, interpolated between some of the ranks.
        cut_off = (decay**rank - decay**500) / (1 - decay**500)
        assert 0.9 * cut_off < option.error < 1.001 * cut_off
