"""How fast a run goes, how long it still takes, and how much of the time it waits for data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from protloc_jax.chips import peak_flops


def words(seconds: float) -> str:
    """A duration as people say it: "42 s", "3 min 10 s", "5 h 03 min", "2 d 04 h"."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours:02d} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


class Clock:
    """Times the steps of a run, restarts included.

    `begin(step)` starts the timing, after the first step's compilation; `lap(step)` closes a lap. `waiting()` wraps
    taking a batch; `pausing()` wraps evaluations and saves, which count for the time left but not for images/s.

    seconds_before: seconds of training in earlier runs of the same directory; `seconds` goes on from there.
    flops_per_image: model FLOPs of one image's step (0 = unknown), for MFU against the peak of `device_kind`.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        global_batch: int,
        devices: int = 1,
        flops_per_image: float = 0.0,
        device_kind: str = "",
        seconds_before: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_steps = total_steps
        self.global_batch = global_batch
        self.devices = devices
        self.flops_per_image = flops_per_image
        self.peak = peak_flops(device_kind)
        self._before = seconds_before
        self._now = now
        self._created = now()
        self._begun: tuple[int, float] | None = None
        self._lap: tuple[int, float] = (0, self._created)
        self._waited = 0.0
        self._paused = 0.0

    @property
    def seconds(self) -> float:
        """Seconds spent in this run and the earlier ones it resumed: compilation, evaluation and saves included."""
        return self._before + self._now() - self._created

    def begin(self, step: int) -> None:
        """Start timing: `step` steps are done, the compiled program is there."""
        self._begun = self._lap = (step, self._now())
        self._waited = self._paused = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        start = self._now()
        try:
            yield
        finally:
            self._waited += self._now() - start

    @contextlib.contextmanager
    def pausing(self) -> Iterator[None]:
        """Takes the time inside out of the throughput."""
        start = self._now()
        try:
            yield
        finally:
            self._paused += self._now() - start

    def lap(self, step: int) -> dict[str, float]:
        """Speed since the last lap, after `step` steps are done (the device must have finished them).

        Keys: seconds, and once there is a lap to measure: images_per_s, images_per_s_per_device, step_ms,
        data_wait_percent, eta_s, and mfu_percent where FLOPs and peak are known.
        """
        values = {"seconds": self.seconds}
        now = self._now()
        before, start = self._lap
        steps, busy = step - before, now - start - self._paused
        if self._begun is None or steps <= 0 or busy <= 0:
            return values
        images = steps * self.global_batch / busy
        values["images_per_s"] = images
        values["images_per_s_per_device"] = images / self.devices
        values["step_ms"] = busy / steps * 1e3
        values["data_wait_percent"] = min(100.0, 100.0 * self._waited / busy)
        first, begun = self._begun
        values["eta_s"] = (now - begun) / (step - first) * (self.total_steps - step)
        if self.flops_per_image and self.peak:
            values["mfu_percent"] = 100.0 * images / self.devices * self.flops_per_image / self.peak
        self._lap = (step, now)
        self._waited = self._paused = 0.0
        return values

    def line(self, values: dict[str, float]) -> str:
        """A lap's values as part of a console line."""
        if "images_per_s" not in values:
            return ""
        parts = [f"{values['images_per_s']:.4g} img/s"]
        if self.devices > 1:
            parts[0] += f" ({values['images_per_s_per_device']:.4g} a device)"
        parts.append(f"data wait {values['data_wait_percent']:.0f} %")
        if "mfu_percent" in values and self.peak:
            parts.append(f"MFU {values['mfu_percent']:.1f} % of {self.peak / 1e12:.0f} TFLOP/s")
        return " | ".join([*parts, f"ETA {words(values['eta_s'])}"])
