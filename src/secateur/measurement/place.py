"""Where a model is to run, and what is measured there before it is cut: steps of width, times of layers, candidates."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from secateur.errors import MeasurementError, PlanError
from secateur.measurement.latency import Clock, Found, Make, Target, Track, search
from secateur.measurement.staircase import probe
from secateur.measurement.tables import savings_of, table_of
from secateur.runtimes.network import Network
from secateur.runtimes.registry import check_able, runtime_of
from secateur.runtimes.session import Options

log = logging.getLogger("secateur.progress")  # of work that takes minutes; the command line shows it


@dataclass(frozen=True)
class Place:
    """Where the model is to run, how fast, and what all searches for that may take together."""

    runtime: str
    options: Options
    target: Target | None
    clock: Clock = field(default_factory=Clock)

    def step(self, model: nn.Module, example: Any) -> int:
        """Return the multiple of channels that the runtime likes."""
        log.info("finding out in which steps time grows on %s, unless it is known", self.runtime)
        return probe(model, example, self.runtime, self.options).step

    def ranking(self, model: nn.Module, example: Any, words: Mapping[str, Any]) -> dict[str, Any]:
        """Return how units are ranked: by time if that is asked for, or is the budget and nothing else is asked for.

        Raises:
            MeasurementError: it is asked for, and the runtime does not tell what layers take.
        """
        asked = words.get("ranking")
        wanted = asked or ("time" if self.target is not None and self.tells else "group")
        if wanted != "time" or words.get("times"):
            return {"ranking": wanted}
        log.info("asking %s what the layers take at several widths, unless it is known", self.runtime)
        times = savings_of(table_of(model, example, self.runtime, self.options))
        if not times and asked:
            raise MeasurementError(
                f"{self.runtime} tells of no layer of this model what it takes. Take another ranking, or runtime."
            )
        if not times:
            log.info("%s tells of no layer what it takes, so that all groups lose the same share.", self.runtime)
            return {"ranking": "group"}
        return {"ranking": wanted, "times": times}

    @property
    def tells(self) -> bool:
        """Whether the runtime tells what layers take."""
        return runtime_of(self.runtime).profile is not None

    def search(self, model: nn.Module, example: Any, make: Make) -> Found:
        """Measure candidates until one meets the target."""
        assert self.target is not None
        full = Network.of_model(type(model).__name__, model, example)
        track = Track(full, example, self.runtime, self.options, self.clock)
        return search(track, make, self.target, lambda text: log.info("measured on %s: %s", self.runtime, text))


def place_of(budget: Mapping[str, Any]) -> tuple[dict[str, Any], Place | None]:
    """Take out of a budget what says where the model is to run.

    Raises:
        PlanError: a time without a runtime, beside another budget, or settings of a runtime without one.
    """
    words = dict(budget)
    given = {name: words.pop(name) for name in ("latency", "on", "precision", "device", "threads") if name in words}
    if given.get("on") is None:
        if any(value is not None for value in given.values()):
            raise PlanError(f"{', '.join(given)}: say on which runtime, such as on='openvino' (--on openvino).")
        if words.get("ranking") == "time" and not words.get("times"):
            raise PlanError("Ranking by time: say on which runtime, such as on='openvino' (--on openvino).")
        return words, None
    runtime = runtime_of(given.pop("on")).name
    latency = given.pop("latency", None)
    other = next((name for name in ("ratio", "macs", "params", "config") if words.get(name) is not None), None)
    if latency is not None and other is not None:
        raise PlanError(f"latency stands alone, and {other} is another budget. Keep one of them.")
    if words.get("ranking") == "time" and latency is None and words.get("macs") is None and words.get("params") is None:
        raise PlanError("Ranking by time wants a cap to stay under. Give macs, params or latency, or another ranking.")
    options = Options(**{name: value for name, value in given.items() if value is not None})
    check_able(runtime, options)
    return words, Place(runtime, options, None if latency is None else Target.read(latency))
