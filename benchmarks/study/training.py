"""One run: a model trained from its initial weights, evaluated on the way."""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING, Any

import keras

import keras_echo
from study import plan
from study.data import material
from study.detection import detection
from study.images import digits, photographs
from study.text import language_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from study.workload import Workload

WORKLOADS = {
    "code": lambda: language_model(*material("code")),
    "prose": lambda: language_model(*material("prose")),
    "digits": digits,
    "photographs": photographs,
    "detection": detection,
}


@functools.cache
def workload_of(task: str) -> Workload:
    """A workload, made once in a process."""
    return WORKLOADS[task]()


@functools.cache
def model_of(task: str, batch_size: int) -> Any:
    """A compiled model, made and compiled once in a process for each size of batches."""
    return compiled(workload_of(task))


def compiled(workload: Workload) -> Any:
    """A workload's model, compiled."""
    model = workload.model()
    model.compile(keras.optimizers.Adam(), workload.loss)
    return model


def reset(model: Any, workload: Workload, seed: int, learning_rate: float) -> None:
    """Makes a model as good as new: the weights of this seed, and an optimizer without a past."""
    keras.utils.set_random_seed(seed)
    model.set_weights(workload.model().get_weights())
    for variable in model.optimizer.variables:  # Adam's moments and its count of steps
        variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    model.optimizer.learning_rate = learning_rate


def dataset_of(
    workload: Workload,
    setting: plan.Setting,
    seed: int,
    kind: type[keras_echo.EchoingPyDataset] = keras_echo.EchoingPyDataset,
) -> keras_echo.EchoingPyDataset:
    """The echoing dataset of a setting; what is read is the same for all settings of a seed."""
    before = setting.method == "example_before"
    of_batches = plan.SHUFFLE_BUFFERS.get(setting.method)
    of_examples = plan.EXAMPLE_BUFFER_BATCHES * setting.batch_size
    return kind(
        workload.passes(setting.batch_size, seed, augmented=not before),
        echo_factor=setting.factor,
        echo="example" if of_batches is None else "batch",
        shuffle_buffer=of_examples if of_batches is None else of_batches,
        augment=workload.augment if before else None,
        steps_per_epoch=setting.steps_between_evaluations,
        placement="host",
        seed=seed,
    )


def batches_read(dataset: keras_echo.EchoingPyDataset) -> int:
    """How many batches the stages behind the source took in, with what their buffers hold.

    `stats().fresh_batches` doesn't count the examples in the buffer that were never used.
    """
    state = dataset.state_dict()
    echo = state["echo"]
    if not echo or echo["kind"] == "batch":
        return state["num_fresh"]
    return math.ceil(echo["num_taken"] / echo["batch_size"])


class Evaluations(keras.callbacks.Callback):
    """What was read and how good the model was, at the end of each epoch."""

    def __init__(self, workload: Workload, dataset: keras_echo.EchoingPyDataset) -> None:
        super().__init__()
        self._workload = workload
        self._dataset = dataset
        self.fresh_batches: list[int] = []
        self.quality: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras calls this after the steps between two evaluations."""
        outputs = self.model.predict_on_batch(self._workload.validation)
        self.fresh_batches.append(batches_read(self._dataset))
        self.quality.append(round(self._workload.score(outputs), 4))


def train(workload: Workload, model: Any, run: plan.Run) -> tuple[list[int], list[float]]:
    """Trains a model that is as good as new.

    Returns:
        At each evaluation, the number of batches that were read, and the quality.
    """
    reset(model, workload, run.seed, run.learning_rate)
    with dataset_of(workload, run.setting, run.seed) as dataset:
        evaluations = Evaluations(workload, dataset)
        model.fit(
            dataset,
            epochs=run.setting.num_steps // run.setting.steps_between_evaluations,
            verbose=0,
            callbacks=[evaluations],
        )
    return evaluations.fresh_batches, evaluations.quality


def record_of(run: plan.Run) -> dict[str, Any]:
    """Does a run, in this process; returns what is known of it as JSON."""

    def do(workload: Workload, model: Any, run: plan.Run) -> dict[str, Any]:
        fresh_batches, quality = train(workload, model, run)
        return {"fresh_batches": fresh_batches, "quality": quality}

    return timed(run, do)


def timed(run: plan.Run, do: Callable[[Workload, Any, plan.Run], dict[str, Any]]) -> dict[str, Any]:
    """Does a run, in this process.

    Args:
        run: What to do.
        do: Trains the compiled model of the workload, and returns what it found as JSON.

    Returns:
        A record: the run's fields, what it took, and what it found.
    """
    workload = workload_of(run.setting.task)
    model = model_of(run.setting.task, run.setting.batch_size)
    begin, computed = time.perf_counter(), time.process_time()
    found = do(workload, model, run)
    return {
        **run.setting._asdict(),
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "seconds": round(time.perf_counter() - begin, 2),
        "cpu_seconds": round(time.process_time() - computed, 2),
        **found,
    }
