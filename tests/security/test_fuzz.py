"""A thousand damaged files of each run; `make soak` tries a million others."""

import fuzz
import pytest


@pytest.mark.filterwarnings("ignore:.*torch.profiler:UserWarning")
@pytest.mark.filterwarnings("ignore:Batch .* must be the one that it was:RuntimeWarning")
def test_damaged_files_give_a_result_or_a_documented_error(tmp_path):
    states = fuzz.States()
    targets = [fuzz.Traces(tmp_path), states, fuzz.CachedBatches(tmp_path)]
    fuzz.fuzz(targets, 1000)
    states.close()
