"""A few changed files for every reader; ``make fuzz`` gives each ten thousand."""

import pytest

from .drive import Worker, available, fuzz
from .readers import READERS

CASES = 20


@pytest.fixture(scope="module")
def workers():
    """With torch, and with the engines alone."""
    both = {False: Worker(), True: Worker()}
    yield both
    for worker in both.values():
        worker.close()


@pytest.mark.parametrize("name", READERS)
def test_every_changed_file_ends_in_a_result_or_one_line(name, workers):
    if not available(name):
        pytest.skip(f"needs {READERS[name].needs}")
    counts, failures = fuzz(name, CASES, workers[name.startswith("exported")])
    assert not failures, "\n".join(failures)
    assert sum(counts.values()) >= CASES / 2
