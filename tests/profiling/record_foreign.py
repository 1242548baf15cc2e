"""Trains as people do who never heard of keras_echo, under the profilers that they use.

Run in a process of its own, with KERAS_BACKEND set: `record_foreign.py LOGDIR [KIND ...]`. Every
kind of recording lands in `LOGDIR/KIND`; what a clock says of each is printed as JSON.
"""

import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path

import keras
import numpy as np

READ, PAUSE = 0.02, 0.01
WARM_UP, STEPS = 4, 8
FEATURES = np.ones((16, 8), "float32")
TARGETS = np.ones((16, 1), "float32")
BARE = [(FEATURES, TARGETS)] * STEPS


class Source(keras.utils.PyDataset):
    def __init__(self, read=READ, length=WARM_UP + STEPS + 4, **options):
        super().__init__(**options)
        self.read, self.length = read, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(self.read)
        return FEATURES, TARGETS


class Clock(keras.callbacks.Callback):
    """Makes up the most of a step, so that a busy machine changes little, and times the calls."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(PAUSE)

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    def truth(self, calls=None, per_call=1, read=READ):
        """Says how many optimizer steps were profiled, and what of each is known, in seconds."""
        ends = self.ends if calls is None else self.ends[WARM_UP - 1 : WARM_UP + calls]
        return {
            "steps": (len(self.ends) if calls is None else calls) * per_call,
            "step": float(np.mean(np.diff(ends))) / per_call,
            "read": read,
            "pause": PAUSE / per_call,
        }


def model(**options):
    built = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
    built.compile("sgd", "mse", **options)
    return built


def fit(data, *callbacks, warm=False, validation=None, **options):
    """Returns a clock, and what trains; a recording of all of `fit` wants a compiled model."""
    trained, clock = model(**options), Clock()
    if warm:
        trained.fit(FEATURES, TARGETS, verbose=0)
    given = {"callbacks": [*callbacks, clock], "validation_data": validation, "verbose": 0}
    return clock, lambda: trained.fit(data, **given)


# TensorFlow


def tf_pipeline():
    import tensorflow as tf

    def slow(x, y):
        return tf.numpy_function(wait, [x], tf.float32), y

    def wait(x):
        time.sleep(READ / 16)
        return x

    examples = 16 * (WARM_UP + STEPS + 4)
    data = tf.data.Dataset.from_tensors((FEATURES[0], TARGETS[0])).repeat(examples)
    data = data.map(lambda x, y: (tf.ensure_shape(slow(x, y)[0], [8]), y))
    return data.batch(16)


def tf_callback(logdir, data, per_call=1, read=READ):
    profile = keras.callbacks.TensorBoard(logdir, profile_batch=(WARM_UP + 1, WARM_UP + STEPS))
    options = {"steps_per_execution": per_call, "jit_compile": False}
    clock, run = fit(data, profile, **options)
    run()
    return clock.truth(STEPS, per_call, read)


def tensorflow_callback_pydataset(logdir):
    return tf_callback(logdir, Source())


def tensorflow_callback_pydataset_workers(logdir):
    return tf_callback(logdir, Source(read=0.05, workers=2, max_queue_size=2), read=0.025)


def tensorflow_callback_tfdata(logdir):
    return tf_callback(logdir, tf_pipeline().prefetch(2))


def tensorflow_callback_tfdata_without_prefetch(logdir):
    return tf_callback(logdir, tf_pipeline())


def tensorflow_callback_steps_per_execution(logdir):
    return tf_callback(logdir, Source(length=4 * len(Source())), 4)


def tensorflow_callback_tfdata_steps_per_execution(logdir):
    return tf_callback(logdir, tf_pipeline().repeat(4).prefetch(2), 4)


def tf_session_around_fit(logdir, data, **options):
    import tensorflow as tf

    clock, run = fit(data, warm=True, jit_compile=False, **options)
    with tf.profiler.experimental.Profile(str(logdir)):
        run()
    return clock.truth()


def tensorflow_session_around_fit(logdir):
    return tf_session_around_fit(logdir, Source())


def tensorflow_session_around_fit_tfdata(logdir):
    return tf_session_around_fit(logdir, tf_pipeline().prefetch(2))


def tensorflow_session_around_fit_and_validation(logdir):
    return tf_session_around_fit(logdir, Source(), validation=Source(read=0))


def tf_session_around_loop(logdir, batches, mark):
    import tensorflow as tf

    trained, clock = model(), Clock()
    trained.build(FEATURES.shape)
    optimizer = keras.optimizers.SGD()

    @tf.function
    def train(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((trained(x) - y) ** 2)
        gradients = tape.gradient(loss, trained.trainable_variables)
        optimizer.apply_gradients(zip(gradients, trained.trainable_variables, strict=True))

    train(FEATURES, TARGETS)
    with tf.profiler.experimental.Profile(str(logdir)):
        for step in range(STEPS):
            with mark(step):
                x, y = next(batches)
                clock.on_train_batch_begin(step)
                train(x, y)
            clock.on_train_batch_end(step)
    return clock.truth()


def tensorflow_session_around_loop(logdir):
    return tf_session_around_loop(logdir, iter(tf_pipeline()), contextlib.nullcontext)


def tensorflow_session_around_marked_loop(logdir):
    import tensorflow as tf

    def mark(step):
        return tf.profiler.experimental.Trace("train", step_num=step, _r=1)

    return tf_session_around_loop(logdir, iter(tf_pipeline()), mark)


def tensorflow_session_around_bare_loop(logdir):
    return tf_session_around_loop(logdir, iter(BARE), contextlib.nullcontext)


# JAX


def jax_options(python):
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = int(python)
    return options


class JaxProfile(keras.callbacks.Callback):
    """What Keras's TensorBoard callback does from Python 3.12 on; before, it refuses JAX."""

    def __init__(self, logdir):
        super().__init__()
        self.logdir, self.mark, self.seen = logdir, None, 0

    def on_train_batch_begin(self, batch, logs=None):
        import jax

        self.seen += 1
        if self.seen == WARM_UP + 1:
            jax.profiler.start_trace(self.logdir)
        if WARM_UP < self.seen <= WARM_UP + STEPS:
            self.mark = jax.profiler.TraceAnnotation(f"Profiled batch {batch}")
            self.mark.__enter__()

    def on_train_batch_end(self, batch, logs=None):
        import jax

        if self.mark is not None:
            self.mark.__exit__(None, None, None)
            self.mark = None
            if self.seen == WARM_UP + STEPS:
                jax.profiler.stop_trace()


def jax_callback(logdir, data, per_call=1):
    if sys.version_info >= (3, 12):
        profile = keras.callbacks.TensorBoard(logdir, profile_batch=(WARM_UP + 1, WARM_UP + STEPS))
    else:
        profile = JaxProfile(logdir / "train")
    clock, run = fit(data, profile, steps_per_execution=per_call)
    run()
    return clock.truth(STEPS, per_call)


def jax_callback_pydataset(logdir):
    return jax_callback(logdir, Source())


def jax_callback_steps_per_execution(logdir):
    return jax_callback(logdir, Source(length=4 * len(Source())), 4)


def jax_trace(logdir, data, python, **options):
    import jax

    clock, run = fit(data, warm=True, **options)
    with jax.profiler.trace(logdir, profiler_options=jax_options(python)):
        run()
    return clock.truth(read=data.read / data.workers)


def jax_trace_around_fit(logdir):
    return jax_trace(logdir, Source(), python=True)


def jax_trace_around_fit_without_python(logdir):
    return jax_trace(logdir, Source(), python=False)


def jax_trace_around_fit_with_workers(logdir):
    return jax_trace(logdir, Source(read=0.05, workers=2), python=True)


def jax_trace_around_fit_and_validation(logdir):
    return jax_trace(logdir, Source(), python=True, validation=Source(read=0))


def jax_trace_around_fit_of_arrays(logdir):
    import jax

    x, y = (np.repeat(part, len(Source()), 0) for part in (FEATURES, TARGETS))
    clock, trained = Clock(), model()
    trained.fit(FEATURES, TARGETS, verbose=0)
    with jax.profiler.trace(logdir, profiler_options=jax_options(True)):
        trained.fit(x, y, batch_size=16, callbacks=[clock], verbose=0)
    return clock.truth(read=0)


def jax_trace_around_loop(logdir, mark=contextlib.nullcontext):
    import jax

    @jax.jit
    def train(weights, x, y):
        return weights - 0.01 * jax.grad(lambda w: ((x @ w - y) ** 2).mean())(weights)

    weights, clock, data = jax.numpy.ones((8, 1)), Clock(), Source()
    train(weights, FEATURES, TARGETS)
    with jax.profiler.trace(logdir, profiler_options=jax_options(False)):
        for step in range(STEPS):
            with mark(step):
                x, y = data[step]
                clock.on_train_batch_begin(step)
                weights = train(weights, x, y).block_until_ready()
            clock.on_train_batch_end(step)
    return clock.truth()


def jax_trace_around_marked_loop(logdir):
    import jax

    def mark(step):
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    return jax_trace_around_loop(logdir, mark)


# PyTorch


class TorchStep(keras.callbacks.Callback):
    def __init__(self, profile):
        super().__init__()
        self.profile = profile

    def on_train_batch_end(self, batch, logs=None):
        self.profile.step()


def torch_handler(logdir, data, marked=False, read=READ, **options):
    import torch

    handler = torch.profiler.tensorboard_trace_handler(str(logdir))
    profile = torch.profiler.profile(on_trace_ready=handler)
    clock, run = fit(data, *([TorchStep(profile)] if marked else []), warm=True, **options)
    with profile:
        run()
    return clock.truth(read=read)


def torch_loader(**options):
    import torch

    class Examples(torch.utils.data.Dataset):
        def __len__(self):
            return 16 * (WARM_UP + STEPS + 4)

        def __getitem__(self, index):
            time.sleep(READ / 16)
            return FEATURES[0], TARGETS[0]

    return torch.utils.data.DataLoader(Examples(), batch_size=16, **options)


def torch_handler_around_fit(logdir):
    return torch_handler(logdir, Source())


def torch_handler_around_fit_with_steps(logdir):
    return torch_handler(logdir, Source(), marked=True)


def torch_handler_around_fit_of_loader(logdir):
    return torch_handler(logdir, torch_loader())


def torch_handler_around_fit_of_loader_with_steps(logdir):
    return torch_handler(logdir, torch_loader(), marked=True)


def torch_handler_around_fit_of_loader_with_workers(logdir):
    return torch_handler(logdir, torch_loader(num_workers=1), marked=True)


def torch_handler_around_fit_with_workers(logdir):
    return torch_handler(logdir, Source(read=0.05, workers=2), read=0.025)


def torch_handler_around_fit_and_validation(logdir):
    return torch_handler(logdir, Source(), validation=Source(read=0))


def torch_handler_around_bare_loop(logdir):
    import torch

    trained, clock = torch.nn.Linear(8, 1), Clock()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.01)
    handler = torch.profiler.tensorboard_trace_handler(str(logdir))
    with torch.profiler.profile(on_trace_ready=handler):
        for step, (x, y) in enumerate(BARE):
            clock.on_train_batch_begin(step)
            optimizer.zero_grad()
            ((trained(torch.as_tensor(x)) - torch.as_tensor(y)) ** 2).mean().backward()
            optimizer.step()
            clock.on_train_batch_end(step)
    return clock.truth()


def torch_handler_with_schedule(logdir):
    """As PyTorch's tutorial has it: only some steps are recorded."""
    import torch

    profile = torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=WARM_UP - 2, warmup=2, active=STEPS, repeat=1),
        on_trace_ready=torch.profiler.tensorboard_trace_handler(str(logdir), use_gzip=True),
    )
    clock, run = fit(Source(), TorchStep(profile))
    with profile:
        run()
    return clock.truth(STEPS)


def main(logdir, *wanted):
    start = re.compile(f"{keras.backend.backend()}_(?=callback_|session_|trace_|handler_)")
    kinds = {start.sub("", name): made for name, made in globals().items() if start.match(name)}
    truths = {
        kind: record(logdir / kind)
        for kind, record in kinds.items()
        if not wanted or kind in wanted
    }
    sys.stdout.write(json.dumps(truths))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
    sys.stdout.flush()
    # TensorFlow's threads may hang in the interpreter's shutdown.
    os._exit(0)
