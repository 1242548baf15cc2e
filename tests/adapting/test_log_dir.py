import dataclasses

from tensorboard.backend.event_processing import event_accumulator

from keras_echo.adapting.log_dir import LogDir
from keras_echo.adapting.tuner import EchoDecision
from keras_echo.metering import EchoStats, SkippedRead
from keras_echo.profiling.measuring.result import from_counters


def decided(step, path):
    found = from_counters(steps=1, seconds=1.0, wait_seconds=0.5, upstream=None, num_readers=1)
    return EchoDecision(step, dataclasses.replace(found, path=str(path)), 2.0, 1.0, "R = 2.00", 2.0)


def test_no_more_than_a_handful_of_traces_stay(tmp_path):
    log = LogDir(tmp_path)
    traces = [tmp_path / "plugins" / "profile" / str(number) / "host.pb" for number in range(8)]
    for step, trace in enumerate(traces):
        trace.parent.mkdir(parents=True)
        trace.write_text("a trace")
        log.decision(decided(step, trace))
    log.close()
    assert [trace.exists() for trace in traces] == [False] * 3 + [True] * 5


def test_curves_go_on_in_another_file_after_close(tmp_path):
    log = LogDir(tmp_path)
    for step in range(2):
        log.progress(step, 1.0, EchoStats())
        log.close()
        log.close()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2


def test_the_share_of_fresh_batches_is_that_of_each_epoch(tmp_path):
    """Also after an earlier training of the same dataset, and over several of them."""
    log, stats = LogDir(tmp_path), EchoStats(steps=1000, fresh_batches=1000)
    shares = (0.5, 0.25, 1.0)
    for epochs in ((0.5, 0.25), (1.0,)):
        log.begin(stats)
        for share in epochs:
            stats = EchoStats(stats.steps + 100, stats.fresh_batches + round(100 * share))
            log.progress(stats.steps, 1.0, stats)
        log.close()
    seen = []
    for path in sorted(tmp_path.glob("events.out.tfevents.*")):
        found = event_accumulator.EventAccumulator(str(path)).Reload()
        seen += [event.value for event in found.Scalars("keras_echo/fresh_fraction")]
    assert seen == [*shares]


def test_what_was_skipped_in_an_epoch_is_written_at_its_end(tmp_path):
    log = LogDir(tmp_path)
    reads = [SkippedRead(index, f"OSError: no\n{index}") for index in range(300)]
    told = [(2, reads[:2]), (2, reads[:2]), (4, reads[:4]), (300, reads[200:])]
    log.begin(EchoStats(steps=1, skipped_reads=1, skipped=tuple(reads[:1])))
    for step, (num, listed) in enumerate(told):
        log.progress(step, 1.0, EchoStats(steps=2, skipped_reads=num, skipped=tuple(listed)))
    log.close()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    found = event_accumulator.EventAccumulator(str(path)).Reload().Tensors("keras_echo/skipped")
    texts = {event.step: event.tensor_proto.string_val[0].decode() for event in found}
    assert texts == {
        0: "Reads that were skipped: 1.\n\n    batch 1: OSError: no 1",
        2: "Reads that were skipped: 2.\n\n    batch 2: OSError: no 2\n    batch 3: OSError: no 3",
        3: "\n".join(
            [
                "Reads that were skipped: 296, the last 100.",
                "",
                *(f"    batch {index}: OSError: no {index}" for index in range(200, 300)),
            ]
        ),
    }
