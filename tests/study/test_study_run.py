import keras
import numpy as np
import pytest
from study import plan

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the study runs on JAX")


def small(method, factor, seed=0):
    class Short(plan.Setting):
        num_steps = 6 * factor
        steps_between_evaluations = 2

    return plan.Run(Short("digits", 16, method, factor), 4e-3, seed)


def test_a_run_on_a_used_model_equals_one_on_a_new_model(digits, model):
    from study.training import compiled, train

    train(digits, model, small("example_before", 2, seed=1))
    again = train(digits, model, small("example_before", 2))
    weights = model.get_weights()
    new = compiled(digits)
    assert again == train(digits, new, small("example_before", 2))
    for a, b in zip(weights, new.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again != train(digits, model, small("example_before", 2, seed=2))


def test_evaluating_on_the_way_changes_nothing(digits, model):
    from study.training import dataset_of, reset, train

    run = small("none", 1)
    train(digits, model, run)
    evaluated = model.get_weights()
    reset(model, digits, run.seed, run.learning_rate)
    with dataset_of(digits, run.setting, run.seed) as dataset:
        model.fit(dataset, epochs=3, verbose=0)
    for a, b in zip(evaluated, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_all_settings_of_a_seed_read_the_same_examples(digits):
    batches = [next(digits.passes(16, 3, augmented=augmented)()) for augmented in (True, False)]
    np.testing.assert_array_equal(batches[0][1], batches[1][1])
    assert not np.array_equal(batches[0][0], batches[1][0])


def test_echoing_reads_fewer_batches(digits, model):
    from study.training import train

    fresh = {
        method: train(digits, model, small(method, 2))[0]
        for method in ("batch", "batch_shuffled", "example_after")
    }
    assert fresh["batch"] == [1, 2, 3, 4, 5, 6]
    # What is in the buffers was read, too: batches of which each is there twice, and examples.
    # Buffers fill as they go, by a use a step or the examples of a batch; two steps each.
    full = plan.SHUFFLE_BUFFER_BATCHES // 2
    assert fresh["batch_shuffled"] == [n + min(n, full) for n in range(1, 7)]
    assert fresh["example_after"][0] == 2
    assert fresh["example_after"] == sorted(fresh["example_after"])


def test_training_and_validation_share_no_region():
    from study.images import BLOCK, photograph_regions

    for train, held_out in photograph_regions():
        assert len(train) > 2 * len(held_out) > 0
        assert {block.shape for block in train + held_out} == {(BLOCK, BLOCK, 3)}
        starts = [block.__array_interface__["data"][0] for block in train + held_out]
        assert len(set(starts)) == len(starts)
        assert not any(np.shares_memory(a, b) for a in train[:5] for b in held_out)


def test_perfect_detections_have_full_average_precision():
    from study.detection import average_precision, decode

    targets = np.zeros((2, 8, 8, 5))
    targets[0, 2, 3] = [1, 0.5, 0.25, 0.7, 0.9]
    targets[1, 5, 1] = [1, 0.1, 0.9, 0.5, 0.5]
    truth = [decode(target[..., 1:])[target[..., 0] == 1] for target in targets]
    outputs = targets.copy()
    outputs[..., 0] = 20 * targets[..., 0] - 10
    assert average_precision(outputs, truth) == 1.0
    outputs[1, 5, 1, 3:] += 2  # a box much too large
    assert average_precision(outputs, truth) < 0.6
    assert average_precision(np.full_like(outputs, np.nan), truth) < 0.1


def test_flipped_boxes_lie_where_the_flipped_digit_is():
    from study.detection import IMAGE, decode, varied

    images = np.zeros((64, IMAGE, IMAGE, 3), np.float32)
    images[:, 10:18, 5:11] = 1
    targets = np.zeros((64, 8, 8, 5), np.float32)
    targets[:, 3, 2] = [1, 0.0, 0.5, *np.log([6 / 4, 8 / 4])]  # the centre is (8, 14)
    seen = set()
    for image, target in zip(*varied((images, targets), np.random.default_rng(0)), strict=True):
        (box,) = decode(target[..., 1:])[target[..., 0] == 1]
        rows, columns = np.nonzero(image[..., 0] > 0.5)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, found, atol=1e-5)
        seen.add(found[0])
    assert seen == {5, IMAGE - 11}
    assert targets[0, 3, 2, 0] == 1  # in place would change the copies


def test_guessing_nothing_costs_seven_bits_per_byte():
    from study.text import VALIDATION_WINDOWS, VOCABULARY, WINDOW, language_model, windows

    text = "".join(map(chr, np.random.default_rng(0).integers(32, 127, 6000)))
    workload = language_model(*windows((f"file {n}", text) for n in range(20)))
    num = min(VALIDATION_WINDOWS, len(workload.validation))
    assert workload.validation.shape == (num, WINDOW)
    np.testing.assert_array_equal(workload.train[0][:, 1:], workload.train[1][:, :-1])
    assert workload.score(np.zeros((num, WINDOW, VOCABULARY))) == pytest.approx(7)
    assert workload.score(np.full((num, WINDOW, VOCABULARY), np.nan)) == 8


@pytest.mark.parametrize("task", ["code", "digits", "detection"])
def test_models_of_a_seed_are_alike_whichever_process_makes_them(task):
    from study.training import compiled, reset, workload_of

    workload = workload_of(task)
    outputs = []
    for before in (1, 2):  # what a process has drawn already
        keras.utils.set_random_seed(before)
        model = compiled(workload)
        reset(model, workload, 0, 1e-3)
        outputs.append(keras.tree.flatten(model.predict_on_batch(workload.validation[:4])))
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one, other)
