"""A signal that asks to stop waits for what must be done once it has begun."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from compressor.system.signals import STOPPING, Stopped, stop_asked, stop_by_unwinding, uninterrupted


@pytest.fixture
def stopping():
    # The tests may have been started with some of them ignored.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STOPPING}
    hook = sys.unraisablehook
    stop_by_unwinding()
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("stopping")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_the_outermost_block_ends(number):
    done = []
    with pytest.raises(Stopped) as stopped, uninterrupted():
        with uninterrupted():
            os.kill(os.getpid(), number)
            done.append("inner")
        done.append("outer")
    assert stopped.value.number == number
    assert done == ["inner", "outer"]


@pytest.mark.usefixtures("stopping")
def test_a_signal_elsewhere_waits_for_nothing():
    with uninterrupted():
        pass
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)


DEAF = """
import os, signal, sys, time
from compressor.system.signals import Stopped, stop_by_unwinding
signal.signal(signal.SIGTERM, signal.SIG_DFL)
stop_by_unwinding()
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
try:
    Deaf()
    time.sleep(60)
except Stopped as stopped:
    print(stopped)
"""


def test_a_stop_that_python_does_not_let_out_comes_again():
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr, done.returncode) == ("SIGTERM\n", "", 0)


@pytest.mark.usefixtures("stopping")
def test_what_asked_to_stop_is_known_whatever_became_of_the_exception():
    assert stop_asked() is None
    with contextlib.suppress(Stopped):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(1)
    assert stop_asked().exit_code == 129
    stop_by_unwinding()
    assert stop_asked() is None
