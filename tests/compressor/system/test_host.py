"""What a program that uses this one as a library finds after a call: what it had before."""

import random

import numpy as np
import pytest
import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

from compressor.system.host import host_unchanged
from compressor.system.hub import quiet


def drawn():
    return random.random(), np.random.random(), torch.rand(1).item()


@pytest.mark.parametrize("fails", [False, True])
def test_threads_and_random_state_are_as_before(fails):
    threads = torch.get_num_threads()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    expected = drawn()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    try:
        with host_unchanged():
            torch.set_num_threads(threads + 1)
            drawn()
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert torch.get_num_threads() == threads
    assert drawn() == expected


@pytest.mark.parametrize(("shown", "of_hub"), [(True, True), (True, False), (False, False)])
def test_progress_bars_are_as_before(shown, of_hub):
    before = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    try:
        (transformers_logging.enable_progress_bar if shown else transformers_logging.disable_progress_bar)()
        (enable_progress_bars if of_hub else disable_progress_bars)()
        with quiet():
            assert not transformers_logging.is_progress_bar_enabled()
            assert are_progress_bars_disabled()
        assert transformers_logging.is_progress_bar_enabled() is shown
        assert are_progress_bars_disabled() is not of_hub
    finally:
        if before[0]:
            transformers_logging.enable_progress_bar()
        if before[1]:
            disable_progress_bars()
