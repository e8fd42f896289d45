"""Mixed precision on CPUs."""

from __future__ import annotations

import torch
from detectron2.engine import SimpleTrainer

from ..timing import now


class CPUAMPTrainer(SimpleTrainer):
    """bfloat16 autocast on CPU: no gradient scaling, because its exponent is that of float32."""

    def run_step(self) -> None:
        assert self.model.training, "[CPUAMPTrainer] model was changed to eval mode!"
        start = now()
        data = next(self._data_loader_iter)
        data_time = now() - start
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = self.model(data)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()
