"""The machine and the versions that a result was made with; device and threads of a command."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import UserError
from compressor.options import DeviceName, RunConfig
from compressor.system.assets import find_distribution
from compressor.system.carried import carried_version
from compressor.system.ranks import local_world
from compressor.version import __version__

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "datasets",
    "textattack",
    "numpy",
)


def installed_version(package: str) -> str | None:
    """The version of a distribution that is carried or installed, or None."""
    if carried := carried_version(package):
        return carried
    found = find_distribution(package)
    return None if found is None else found.version


def package_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of `compress` and of packages that results depend on, as far as they are installed."""
    found = {name: installed_version(name) for name in packages}
    return {"compress": __version__, **{name: version for name, version in found.items() if version}}


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(run: RunConfig) -> int:
    """Threads of a process: those asked for, or its share of one a core."""
    return run.threads or max(1, available_cores() // local_world())


def processor_name() -> str:
    """The processor's name as the system gives it."""
    return _processor_fact("model name") or platform.processor() or platform.machine()


def processor_vendor() -> str | None:
    """The processor's vendor as it names itself, such as GenuineIntel; None where Linux does not tell."""
    return _processor_fact("vendor_id")


def _processor_fact(key: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def resolve_device(name: DeviceName) -> torch.device:
    """The device that `name` stands for here.

    Raises:
        UserError: CUDA is asked for and PyTorch finds none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def prepare(run: RunConfig) -> torch.device:
    """Fix the number of threads of this process and return its device."""
    set_threads(run)
    return resolve_device(run.device)


def set_threads(run: RunConfig) -> None:
    """Fix the number of PyTorch's threads in this process."""
    import torch

    torch.set_num_threads(thread_count(run))


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Within it PyTorch computes with so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_environment(run: RunConfig) -> dict[str, Any]:
    """Facts on machine, versions, threads and device, for records and reports."""
    device = resolve_device(run.device)
    device_name = processor_name()
    if device.type == "cuda":
        import torch

        device_name = torch.cuda.get_device_name(device)
    return {
        "device": device.type,
        "device_name": device_name,
        "processor": processor_name(),
        "cores": available_cores(),
        "threads": thread_count(run),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": package_versions(),
    }
