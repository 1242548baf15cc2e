"""The whole demo, cut short: it trains, tells and writes what it says."""

import re

import keras
import pytest

from keras_echo.cli import main


@pytest.mark.timeout(240)
def test_the_demo_runs(tmp_path, capsys):
    pytest.importorskip("mlxtend")
    output = tmp_path / "out"
    assert main(["demo", "--output", str(output), "--target", "0.5", "--max-seconds", "8"]) == 0
    told = capsys.readouterr().out
    assert f"Backend {keras.backend.backend()}: a training step takes" in told
    rows = re.findall(r"^(without|adaptive|hand-picked) \w+ +([\d.]+)", told, re.MULTILINE)
    assert [name for name, _ in rows] == ["without", "adaptive", "hand-picked"]
    assert float(rows[0][1]) == 1.0
    assert float(rows[1][1]) > 2.0
    assert float(rows[2][1]) > 2.0
    assert "DataEchoCallback raises echo_factor from 1 to" in told
    assert (output / "validation_accuracy.png").stat().st_size > 10_000
    for run in ("without_echoing", "adaptive_echoing", "hand-picked_factor"):
        assert list((output / run).glob("events.out.tfevents.*"))


def test_the_command_names_its_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "demo" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
