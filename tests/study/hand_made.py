"""Records as the study writes them, made by hand."""

from study import plan

# Accuracies at e = 1 by evaluation: 16 of them; the target of `digits` lies where a test puts it.
RISING = [0.1 * min(n, 9) for n in range(1, 17)]


def record(setting, seed, quality, *, rate=None, fresh=None):
    between = setting.steps_between_evaluations
    num_batches = [between * n // setting.factor for n in range(1, len(quality) + 1)]
    return {
        **setting._asdict(),
        "learning_rate": setting.size.learning_rate if rate is None else rate,
        "seed": seed,
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "fresh_batches": num_batches if fresh is None else fresh,
        "quality": quality,
    }


def setting(method, factor=4, *, task="digits", larger=False):
    return plan.Setting(task, plan.TASKS[task].sizes[larger].batch_size, method, factor)


def reaching_at(setting, share):
    """Qualities that jump over the target behind `share` of the run; never, if share > 1."""
    task = plan.TASKS[setting.task]
    good, bad = (0.0, 9.0) if task.lower_is_better else (1.0, 0.0)
    num = plan.NUM_EVALUATIONS * setting.factor
    return [good if n > share * num else bad for n in range(1, num + 1)]


def worth_record(setting, seed, quality, *, fresh=None, measuring_steps=None, windows=()):
    made = record(setting, seed, quality, fresh=fresh)
    num = len(quality)
    return {
        **made,
        "factors": num * [float(setting.factor)],
        "measuring_steps": num * [0.0] if measuring_steps is None else measuring_steps,
        "windows": list(windows),
        "worth": {},
    }
