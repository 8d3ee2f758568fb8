"""A signal that asks to stop waits for what must be done once it has begun."""

import os
import signal

import pytest

from compressor.signals import STOPPING, Stopped, stop_by_unwinding, uninterrupted


@pytest.fixture
def stopping():
    # The tests may have been started with some of them ignored.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STOPPING}
    stop_by_unwinding()
    yield
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
