"""One run of the study of worth: it ends at its target, and measures on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.measures import reached
from study.plan import FOLLOW, Run
from study.training import Evaluations, dataset_of, reset, timed
from study.worth.measuring import Measuring
from study.worth.plan import measures_worth

if TYPE_CHECKING:
    import keras_echo
    from study.workload import Workload


class EvaluationsToTarget(Evaluations):
    """The factor and what measuring took, too, at each evaluation; ends training at the target.

    Where the factor follows worth, it also ends training when what e = 1 reads has been read.
    """

    def __init__(
        self,
        workload: Workload,
        dataset: keras_echo.EchoingPyDataset,
        run: Run,
        measuring: Measuring,
    ) -> None:
        super().__init__(workload, dataset)
        self._echoing, self._run, self._measuring = dataset, run, measuring
        self.factors: list[float] = []
        self.measuring_steps: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after the steps between two evaluations."""
        super().on_epoch_end(epoch, logs)
        self.factors.append(self._echoing.echo_factor)
        self.measuring_steps.append(round(self._measuring.cost_steps, 3))
        setting = self._run.setting
        is_read = setting.method == FOLLOW and self.fresh_batches[-1] >= setting.size.num_steps
        if is_read or reached({"task": setting.task, "quality": self.quality}):
            self.model.stop_training = True


def train(workload: Workload, model: Any, run: Run) -> dict[str, Any]:
    """Trains a model that is as good as new.

    Returns:
        As JSON: at each evaluation the batches that were read, the quality, the factor, and what
        measuring took so far in steps; for each stretch of steps that was measured, their uses and
        the decreases of the loss; and what follows of the worth of each use, with its standard
        error and the number of steps it was seen in.
    """
    setting = run.setting
    reset(model, workload, run.seed, run.learning_rate)
    with dataset_of(workload, setting, run.seed) as dataset:
        measuring = Measuring(dataset, setting)
        evaluations = EvaluationsToTarget(workload, dataset, run, measuring)
        model.fit(
            dataset,
            epochs=setting.num_steps // setting.steps_between_evaluations,
            verbose=0,
            callbacks=[*([measuring] if measures_worth(setting) else []), evaluations],
        )
    return {
        "fresh_batches": evaluations.fresh_batches,
        "quality": evaluations.quality,
        "factors": evaluations.factors,
        "measuring_steps": evaluations.measuring_steps,
        "windows": [
            (uses, [float(f"{decrease:.4g}") for decrease in decreases])
            for uses, decreases in measuring.windows
        ],
        "worth": {str(use): list(found) for use, found in measuring.worth.estimates().items()},
    }


def record_of(run: Run) -> dict[str, Any]:
    """Does a run, in this process; returns what is known of it as JSON."""
    return timed(run, train)
