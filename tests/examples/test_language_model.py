"""The language model example: a stranger's copy runs, and its data are what it says."""

import dataclasses
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_echo

pytest.importorskip("keras_hub")
pytest.importorskip("tokenizers")

SCRIPT = Path(__file__).parents[2] / "examples" / "language_model.py"
TEXT = "def f(x):\n    return x  # ∂x, Größe, 木\n"


@pytest.fixture(scope="module")
def tokenizer(script):
    return script.trained_tokenizer([TEXT] * 10, 300)


@pytest.mark.timeout(240)
def test_a_copy_runs_anywhere(tmp_path, run_copy):
    told = run_copy("--log-dir", "logs")
    rows = re.findall(r"^(without|adaptive) echoing +([\d.]+)", told, re.MULTILINE)
    assert [name for name, _ in rows] == ["without", "adaptive"]
    assert float(rows[0][1]) == 1.0
    assert re.search(r"R = \d", told), told
    assert "DataEchoCallback" in told
    assert (tmp_path / "logs" / "bits_per_byte.png").stat().st_size > 10_000
    for run in ("without_echoing", "adaptive_echoing"):
        assert list((tmp_path / "logs" / run).glob("events.out.tfevents.*"))
        assert list((tmp_path / "logs" / run / "keras_echo").rglob("*.xplane.pb"))


@given(texts=st.lists(st.text(min_size=2, max_size=40), min_size=1, max_size=4))
@settings(max_examples=30)
def test_targets_follow_inputs_and_every_byte_counts_once(script, tokenizer, texts):
    inputs, targets = script.as_batch(tokenizer, texts, 200)
    assert inputs.shape == targets.shape == (len(texts), 200)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    for text, row in zip(texts, targets, strict=True):
        ids = tokenizer.encode(text).ids
        np.testing.assert_array_equal(row[: len(ids) - 1], ids[1:])
        assert not row[len(ids) - 1 :].any()
    corpus = script.Corpus(None, tokenizer, (inputs, targets))
    first = sum(len(tokenizer.id_to_token(tokenizer.encode(text).ids[0])) for text in texts)
    num_bytes = sum(len(text.encode()) for text in texts) - first
    if targets.any():
        assert corpus.bytes_per_token * np.count_nonzero(targets) == pytest.approx(num_bytes)


def test_long_texts_are_cut(script, tokenizer):
    inputs, targets = script.as_batch(tokenizer, [TEXT * 9], 8)
    ids = tokenizer.encode(TEXT * 9).ids
    assert [*inputs[0], targets[0, -1]] == ids[:9]


def test_whole_files_are_held_out(script, tmp_path, monkeypatch):
    for number in range(40):
        (tmp_path / f"{number}.py").write_bytes(bytes([number + 1]) * 1000)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "left_out.py").write_bytes(b"\xff" * 1000)
    monkeypatch.setattr(script.sysconfig, "get_path", lambda name: str(tmp_path))
    held_out, training = script.python_windows(None)
    assert held_out.shape[1] == training.shape[1] == script.WINDOW_BYTES
    assert len(set(held_out.flat)) == 2
    assert len(set(training.flat)) == 38
    assert not set(held_out.flat) & set(training.flat)
    assert 255 not in training


def test_characters_that_were_cut_are_dropped(script):
    window = np.frombuffer("木xx木".encode()[1:-1], np.uint8)
    assert script.as_texts(window[None]) == ["xx"]


def small(script, base):
    return dataclasses.replace(
        base, vocabulary=300, tokens=12, width=8, num_heads=2, num_layers=1, batch_size=4
    )


def test_the_loss_is_a_mean_over_real_tokens_and_the_model_is_causal(script, tokenizer):
    model = script.built_model(small(script, script.PYTHON))
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, 300, (4, 12)).astype(np.int32)
    targets = rng.integers(1, 300, (4, 12)).astype(np.int32)
    targets[0, 3:] = script.PADDING
    logits = keras.ops.convert_to_numpy(model(inputs)).astype(np.float64)
    nats = (
        np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], 2)[..., 0]
    )
    loss = model.evaluate(inputs, targets, batch_size=4, verbose=0)
    assert loss == pytest.approx(nats[targets != script.PADDING].mean(), rel=1e-4)
    inputs[:, 6] = 1 + inputs[:, 6] % 299
    changed = np.abs(keras.ops.convert_to_numpy(model(inputs)) - logits).max((0, 2))
    assert changed[:6].max() < 1e-5 < changed[6:].min()


def test_lm1b_is_read_through_tensorflow_datasets(script, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("reads with TensorFlow, whatever the backend")
    tfds = pytest.importorskip("tensorflow_datasets")
    task = dataclasses.replace(small(script, script.LM1B), shuffle_buffer=8, num_validation=6)
    options = script.parse(["--dataset", "lm1b", "--data", str(tmp_path)])
    with tfds.testing.mock_data(num_examples=30), script.lm1b_corpus(task, options) as corpus:
        assert corpus.validation[0].shape == (6, task.tokens)
        assert corpus.bytes_per_token >= 1
        batches = list(corpus.source())
        assert [len(inputs) for inputs, _ in batches] == [4] * 7 + [2]
        with keras_echo.EchoingPyDataset(
            corpus.source, echo="example", echo_factor=2, shuffle_buffer=8, steps_per_epoch=4
        ) as dataset:
            inputs, targets = dataset[0]
        assert inputs.shape == targets.shape == (4, task.tokens)
        np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
