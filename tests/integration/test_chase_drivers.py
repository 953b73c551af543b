"""Both methods on the trained pointer chase: at every step the entry that was looked up is the first driver among the table's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tracestore.evaluate.suites.pointer_chase_model import TrainedChase
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec
from tracestore.extract.loading import load_model
from tracestore.model import Method

SEQUENCES = 12


@pytest.mark.parametrize(("method", "least_share"), [("frozen", 0.75), ("secant", 0.68)])
def test_the_entry_that_was_looked_up_is_the_first_driver(chase: TrainedChase, method: Method, least_share: float) -> None:
    task = chase.task
    sequences = task.sample(SEQUENCES, torch.Generator().manual_seed(11))
    attributor = Attributor(load_model(chase.final.folder).model)
    shares = []
    for sequence, drivers in zip(sequences, task.drivers(sequences).tolist(), strict=True):
        run = attributor.run(sequence[:-1], method=method)
        for step, driver in enumerate(drivers, start=1):
            found = run.attribute(TargetSpec(task.keys + step, int(sequence[task.keys + step + 1])))
            direct = (found.direct_value + found.direct_address)[1 : task.keys + 1]
            assert int(direct.argmax()) + 1 == driver
            shares.append(direct[driver - 1] / direct.sum())
    assert np.mean(shares) > least_share
    assert len(shares) == SEQUENCES * task.steps
