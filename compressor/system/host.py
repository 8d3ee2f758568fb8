"""The program that calls this one as a library: what is global in its process stays as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def host_unchanged() -> Iterator[None]:
    """Within it threads and random state may change; after it they are as before.

    These are PyTorch's number of threads, and the global random state of Python, NumPy and PyTorch, also on
    GPUs that are in use.
    """
    import numpy as np
    import torch

    threads = torch.get_num_threads()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_num_threads(threads)
