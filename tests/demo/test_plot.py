import subprocess
import sys

import pytest

from keras_echo.demo.comparison.plot import plot
from keras_echo.demo.comparison.table import Goal, Point, Run


def run(name, factor, *points):
    return Run(name, factor, tuple(Point(*point) for point in points))


BASE = run("without", 1.0, (0.0, 0, 0, 0.1), (20.0, 900, 900, 0.95), (41.25, 1875, 1875, 0.971))
ECHO = run("with", 4.8, (0.0, 0, 0, 0.1), (14.5, 3000, 640, 0.974))
FLAT = run("never", 2.0, (0.0, 0, 0, 0.1), (9.0, 100, 50, 0.1))


GOAL = Goal("validation accuracy", 0.97)


@pytest.mark.parametrize("goal", [GOAL, Goal("bits per byte", 0.5, is_loss=True)])
@pytest.mark.parametrize("runs", [[BASE, ECHO], [BASE], [FLAT, FLAT], [BASE, ECHO, FLAT]])
def test_a_png_of_1200_by_700(tmp_path, runs, goal):
    plot(runs, goal, tmp_path / "plot.png")
    data = (tmp_path / "plot.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert [int.from_bytes(data[i : i + 4]) for i in (16, 20)] == [1200, 700]


def test_it_leaves_pyplot_and_the_display_alone(tmp_path):
    program = (
        "import sys; from keras_echo.demo.comparison.plot import plot\n"
        "from keras_echo.demo.comparison.table import Goal, Point, Run\n"
        "plot([Run('a', 1.0, (Point(1.0, 1, 1, 0.5),))], Goal('accuracy', 0.5), sys.argv[1])\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-c", program, tmp_path / "plot.png"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"False\n"


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError) as caught:
        plot([BASE], GOAL, tmp_path / "plot.png")
    assert str(caught.value).endswith('Run pip install "keras-echo[demo]".')
