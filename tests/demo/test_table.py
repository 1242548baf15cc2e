import pytest

from keras_echo.demo.comparison.table import Goal, Point, Run, table

ACCURACY = Goal("validation accuracy", 0.97)


def curve(*points):
    return tuple(Point(*point) for point in points)


BASE = Run(
    "without echoing",
    1.0,
    curve((0.0, 0, 0, 0.1), (20.0, 900, 900, 0.95), (41.25, 1875, 1875, 0.971)),
)
ECHO = Run(
    "with echoing",
    4.76,
    curve((0.0, 0, 0, 0.1), (14.56, 3072, 640, 0.974, 655), (20.0, 4220, 880, 0.969)),
    0.004,
)


def last_line(*runs):
    return table(runs, ACCURACY, 4.8).splitlines()[-1]


def run(name, factor, seconds, accuracy, steps=1000, fresh=500):
    return Run(name, factor, curve((0.0, 0, 0, 0.1), (seconds, steps, fresh, accuracy)))


def test_the_table():
    assert table([BASE, ECHO], ACCURACY, 4.8) == (
        "Until 97.0% validation accuracy, R = 4.8 "
        "(reading a batch takes 4.8 times as long as training on it):\n"
        "\n"
        "run              factor  seconds  fresh batches  reads  steps  steps/s  training   best\n"
        "---------------  ------  -------  -------------  -----  -----  -------  --------  -----\n"
        "without echoing     1.0     41.2           1875      -   1875     45.5         -  97.1%\n"
        "with echoing        4.8     14.6            640    655   3072    211.0       84%  97.4%\n"
        "\n"
        "with echoing: 97.0% validation accuracy 2.8x sooner than without echoing, "
        "from 640 fresh batches instead of 1875."
    )


def test_a_row_that_never_reached_the_target():
    assert table([BASE, ECHO], Goal("validation accuracy", 0.9711), 4.8).splitlines()[2:6] == [
        "run              factor      seconds  fresh batches  reads  steps  steps/s  training   "
        "best",
        "---------------  ------  -----------  -------------  -----  -----  -------  --------  "
        "-----",
        "without echoing     1.0  not reached              -      -      -     45.5         -  "
        "97.1%",
        "with echoing        4.8         14.6            640    655   3072    211.0       84%  "
        "97.4%",
    ]


def test_one_run_has_no_verdict():
    assert table([BASE], ACCURACY, 4.8).endswith("1875      -   1875     45.5         -  97.1%")


def test_three_runs_have_two():
    lines = table([BASE, ECHO, run("with e = 8", 8.0, 82.5, 0.98)], ACCURACY, 4.8).splitlines()
    assert [line.partition(":")[0] for line in lines[-2:]] == ["with echoing", "with e = 8"]


@pytest.mark.parametrize(
    ("base", "echo", "verdict"),
    [
        (
            run("without", 1.0, 10.0, 0.98),
            run("with", 4.0, 10.3, 0.98, fresh=250),
            "with: 97.0% validation accuracy in about the same time as without, "
            "from 250 fresh batches instead of 500.",
        ),
        (
            run("without", 1.0, 10.0, 0.98),
            run("with", 4.0, 15.0, 0.98),
            "with: 97.0% validation accuracy 1.5x LATER than without, "
            "from 500 fresh batches instead of 500.",
        ),
        (
            run("without", 1.0, 10.0, 0.98),
            run("with", 4.0, 15.0, 0.9512),
            "with: never reached 97.0% validation accuracy (best 95.1% in 15.0 s), "
            "without did after 10.0 s. Echoing did not help here.",
        ),
        (
            run("without", 1.0, 60.0, 0.95),
            run("with", 4.0, 20.0, 0.98),
            "with: 97.0% validation accuracy more than 3.0x sooner, "
            "without never reached it (best 95.0% in 60.0 s).",
        ),
        (
            run("without", 1.0, 10.0, 0.95),
            run("with", 4.0, 20.0, 0.98),
            "No speed-up to tell: without never reached it (best 95.0% in 10.0 s), "
            "with trained longer to reach it.",
        ),
        (
            run("without", 1.0, 10.0, 0.95),
            run("with", 4.0, 20.0, 0.96),
            "No speed-up to tell: 97.0% validation accuracy was never reached, "
            "neither without (best 95.0% in 10.0 s) nor with (best 96.0% in 20.0 s).",
        ),
    ],
)
def test_verdicts_are_honest(base, echo, verdict):
    assert last_line(base, echo) == verdict


def test_the_first_evaluation_at_the_target_counts():
    assert ACCURACY.reached(ECHO).seconds == 14.56
    assert Goal("accuracy", 0.974).reached(ECHO).seconds == 14.56
    assert Goal("accuracy", 0.975).reached(ECHO) is None


def test_of_a_loss_less_is_better():
    goal = Goal("bits per byte", 2.1, is_loss=True)
    falling = Run(
        "a", 1.0, curve((1.0, 100, 100, 2.5), (2.0, 200, 200, 2.05), (3.0, 300, 300, 2.2))
    )
    assert goal.reached(falling).seconds == 2.0
    assert goal.best(falling) == 2.05
    assert str(goal) == "2.100 bits per byte"
    assert table([falling], goal, 1.0).startswith("Until 2.100 bits per byte, R = 1.0")


def test_steps_per_second_of_one_point():
    assert Run("a", 1.0, curve((4.0, 100, 100, 0.5))).steps_per_second == 25.0


def test_a_run_needs_an_evaluation():
    with pytest.raises(ValueError, match="curve must hold an evaluation") as caught:
        Run("a", 1.0, ())
    assert str(caught.value).endswith("Received: (). Evaluate the run at least once.")
