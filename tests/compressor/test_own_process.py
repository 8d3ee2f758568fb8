import os

import pytest

from compressor.own_process import ProcessEndedError, in_own_process


def test_the_result_comes_from_another_process():
    assert in_own_process(os.getpid) != os.getpid()


def test_a_process_that_ends_without_a_result_is_an_error_with_its_code():
    with pytest.raises(ProcessEndedError, match="code 3") as ended:
        in_own_process(os._exit, 3)
    assert ended.value.code == 3
