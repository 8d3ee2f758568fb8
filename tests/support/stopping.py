"""Runs that are stopped in the middle, as a killed process is."""

from compressor.system.console import SilentProgress


class StoppedError(Exception):
    """In place of the signal."""


class StopBefore(SilentProgress):
    """Stops a run in front of a step, counted from 0, of the work that begins with those words."""

    def __init__(self, step: int | None, work: str = ""):
        self.step = step
        self.work = work

    def track(self, items, description, *settings, **named):
        for place, item in enumerate(items):
            if place == self.step and description.startswith(self.work):
                raise StoppedError
            yield item

    def log(self, message):
        if self.step is None and message.startswith(self.work):
            raise StoppedError
