"""Prune to a time: candidates are measured on the runtime that the model is deployed to, until one meets the budget."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from secateur.errors import BudgetError, MeasurementError, PlanError
from secateur.measurement.cache import remembered
from secateur.measurement.contest import Cell, contest
from secateur.measurement.profiling import profile
from secateur.measurement.statistics import Ratio
from secateur.planning.plans import Plan
from secateur.runtimes.network import Network
from secateur.runtimes.session import Options
from secateur.runtimes.shapes import Sizes

_log = logging.getLogger("secateur")
MOST, LONGEST = 20, 300.0  # candidates, and seconds
CLOSE = 0.03  # share of the budget; noise may add about as much when the model is measured again
FAR = 0.05  # share of the budget by which nothing may miss it
KNOWN = 0.02  # share of a time by which it may be uncertain
DAY = 24 * 3600.0  # seconds
SMALLEST, NARROW = 0.01, 0.003  # shares of the MACs
Make = Callable[[float], tuple[nn.Module, Plan]]
_BUDGET = re.compile(r"(\d+\.?\d*|\.\d+)(x|ms)")


@dataclass(frozen=True)
class Target:
    """A time to meet: a share of the unpruned model's, or milliseconds."""

    value: float
    relative: bool

    @classmethod
    def read(cls, text: str | float) -> Target:
        """Read "0.5x", "60ms", or a number, which is a share.

        Raises:
            PlanError: it is neither, or no time that pruning can reach.

        Example:
            >>> Target.read("60ms")
            Target(value=60.0, relative=False)
        """
        found = _BUDGET.fullmatch(f"{text:g}x" if isinstance(text, int | float) else text.strip().replace(" ", ""))
        if found is None:
            raise PlanError(f"{text!r} is no time. Write a share of the model's, such as 0.5x, or one such as 60ms.")
        target = cls(float(found[1]), found[2] == "x")
        if target.value <= 0 or (target.relative and target.value >= 1):
            raise PlanError(f"latency={text!r} asks for nothing that pruning does: give a share between 0 and 1.")
        return target

    def share(self, full: Cell) -> float:
        """Return the target as a share of the time of the unpruned model."""
        return self.value if self.relative else self.value / full.spread.median


@dataclass(frozen=True)
class Candidate:
    """A pruned model that was measured: its budget, what it keeps, its time as a share of the unpruned model's."""

    macs: float  # share of the model's
    importance: float  # mean share that groups keep
    time: float
    low: float
    high: float
    milliseconds: float


@dataclass(frozen=True)
class Found:
    """The curve of a search, and the candidate that meets the target."""

    target: float
    full_milliseconds: float
    chosen: Candidate
    candidates: tuple[Candidate, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for a plan's recipe."""
        return asdict(self)


@dataclass
class Clock:
    """What a search may take, with those for coarser steps of width that came before it."""

    candidates: int = MOST
    seconds: float = LONGEST
    measured: int = 0
    begun: float | None = None

    def start(self) -> None:
        """Begin to count, unless it has begun."""
        self.begun = time.monotonic() if self.begun is None else self.begun

    def is_over(self) -> bool:
        """Tell whether no further candidate is to be measured."""
        is_late = self.begun is not None and time.monotonic() - self.begun > self.seconds
        return is_late or self.measured >= self.candidates


@dataclass(frozen=True)
class Track:
    """Where candidates run against the unpruned model.

    Attributes:
        full: the unpruned model.
        example: how it is called.
        runtime: the runtime's name.
        options: precision, device and threads.
        clock: what all may take.
        seconds: of measurement for each candidate.
    """

    full: Network
    example: Any
    runtime: str
    options: Options
    clock: Clock = field(default_factory=Clock)
    seconds: float = 3.0

    def alone(self) -> Cell:
        """Time the unpruned model.

        Raises:
            MeasurementError: the runtime does not run it.
        """
        return self._run([self.full])[0]

    def against(self, small: nn.Module, plan: Plan, macs: float, wanted: float) -> Candidate:
        """Time a candidate, which keeps this share of the MACs, and the unpruned model in turns.

        They are opened again until the ratio is known well, or is known to be far from the one that is wanted, or the
        time is over.

        What was measured on this day is not measured again: a search that was interrupted goes on where it was.

        Raises:
            MeasurementError: the runtime does not run them.
        """
        other = Network.of_model(f"{self.full.name} pruned", small, self.example)
        widths = {name: [list(shape), list(plan.shape_after(name))] for name, shape in plan.fingerprint.items()}
        details = [self.full.identity, widths, self.seconds, round(wanted, 3)]

        def measure() -> list[float]:
            self.clock.measured += 1  # what is remembered takes no time, and a second run goes on after it
            full, pruned = self._run([self.full, other], lambda ratio: self.clock.is_over() or _is_known(ratio, wanted))
            ratio = full.times_as_fast_as(pruned)
            assert ratio is not None
            return [ratio.value, ratio.low, ratio.high, pruned.spread.median]

        times = remembered("candidate", self.runtime, self.options, details, measure, DAY)
        return Candidate(macs, plan.recipe["importance"], *times)

    def floor(self, small: nn.Module) -> str:
        """Say what the time of a candidate goes into, where the runtime tells."""
        network = Network.of_model(f"{self.full.name} pruned", small, self.example)
        try:
            return f" What it takes: {profile(network, self.runtime, self.options, Sizes())}."
        except MeasurementError:
            return ""

    def _run(self, networks: list[Network], sure: Callable[[Ratio], bool] | None = None) -> list[Cell]:
        cells = contest(networks, self.runtime, self.options, Sizes(), self.seconds, alone=False, sure=sure)
        for cell in cells:
            if not cell.milliseconds:
                raise MeasurementError(f"{cell.network} cannot be measured in {cell.runtime}: {cell.why}")
        return cells


def search(track: Track, make: Make, target: Target, tell: Callable[[str], object] = len) -> Found:
    """Find the MACs that a model may keep for its time to meet a target.

    Each candidate runs in turns with the unpruned model. Time falls with the MACs, but in steps and not in proportion:
    from each measurement the next is interpolated between the nearest candidates on both sides of the target.

    Args:
        track: the unpruned model, and where it runs.
        make: from a share of the MACs to the pruned model and its plan; raises BudgetError where that is too little.
        target: the time.
        tell: hears what is being done.

    Raises:
        BudgetError: the time cannot be met; says how far it falls.
        PlanError: the model meets it as it is.
        MeasurementError: the runtime does not run the model.
    """
    track.clock.start()
    full = track.alone()
    _check_needed(target, full, track)
    measured: list[Candidate] = []
    smallest: nn.Module | None = None
    wanted, floor = target.share(full), SMALLEST
    share: float | None = max(0.9 * wanted, 2 * SMALLEST)
    for _ in range(3 * MOST):
        if share is None or (measured and track.clock.is_over()):
            break
        try:
            small, plan = make(share)
        except BudgetError:
            floor, share = share, _between(share, min((one.macs for one in measured), default=1.0))
            continue
        candidate = track.against(small, plan, share, wanted)
        measured.append(candidate)
        tell(f"with {share:.0%} of the MACs {candidate.time:.2f} of the time; {wanted:.2f} is wanted")
        smallest = small if candidate.time == min(one.time for one in measured) else smallest
        share = None if abs(candidate.time / wanted - 1) <= CLOSE else _next(measured, wanted, floor)
    if smallest is None:
        raise BudgetError(f"Of {track.full.name} too little may be cut for any time below its own.")
    best = min(measured, key=lambda one: (one.time > (1 + FAR) * wanted, abs(one.time / wanted - 1)))
    cut_short = share is not None and track.clock.is_over()
    if best.time > (1 + FAR) * wanted:
        raise BudgetError(_unmet(track, smallest, measured, wanted, cut_short))
    if best.time < (1 - FAR) * wanted:
        slower = min((one.time for one in measured if one.time > wanted), default=1.0)
        why = _over(track.clock) if cut_short else f"from {slower:.2f} on the time falls in one step."
        _log.warning("%s takes %.2f of its time, where %.2f would do: %s", track.full.name, best.time, wanted, why)
    return Found(wanted, best.milliseconds / best.time, best, tuple(measured))


def _unmet(track: Track, smallest: nn.Module, measured: Sequence[Candidate], wanted: float, cut_short: bool) -> str:
    least = min(one.time for one in measured)
    told = (
        f"{track.full.name} takes {least:.2f} of its time in {track.runtime} at the least, and {wanted:.2f} is wanted"
    )
    if cut_short:
        return f"{told}: {_over(track.clock)}"
    return (
        f"{told}: the rest is no matter of channels.{track.floor(smallest)} Allow more, or keep fewer channels "
        "(min_channels=)."
    )


def _over(clock: Clock) -> str:
    return (
        f"{clock.measured} candidates were measured, and searching ends after {clock.candidates}, or "
        f"{clock.seconds:.0f} s. The same command goes on from there: what was measured is known for a day."
    )


def _is_known(ratio: Ratio, wanted: float) -> bool:
    """Tell whether a time is known well, or well enough to say that it is not near the one that is wanted."""
    is_far = ratio.high < (1 - FAR) * wanted or ratio.low > (1 + FAR) * wanted
    return is_far or (ratio.high - ratio.low) / 2 <= KNOWN * ratio.value


def _check_needed(target: Target, full: Cell, track: Track) -> None:
    if target.share(full) >= 1:
        raise PlanError(
            f"{track.full.name} takes {full.spread.median:.3g} ms in {track.runtime} as it is, which is less than the "
            f"{target.value:g} ms that are wanted. Nothing need be cut."
        )


def _next(measured: Sequence[Candidate], wanted: float, floor: float) -> float | None:
    """Return the next share of the MACs to try; None if there is none left between those that were measured."""
    points = sorted([*((one.macs, one.time - wanted) for one in measured), (1.0, 1.0 - wanted)])
    below = max((point for point in points if point[1] <= 0), default=None)
    above = min((point for point in points if point[1] > 0 and (below is None or point[0] > below[0])), default=None)
    if above is None:
        return None
    if below is None:
        guess = _extrapolated(points, floor)
        return guess if guess < points[0][0] - NARROW else None
    weight = below[1] / (below[1] - above[1])
    guess = below[0] + (above[0] - below[0]) * min(max(weight, 0.1), 0.9)
    return guess if min(abs(guess - one.macs) for one in measured) > NARROW else None


def _extrapolated(points: Sequence[tuple[float, float]], floor: float) -> float:
    """Return where the line through the two smallest candidates meets the target; at least half way to the floor."""
    (first, excess), (second, more) = points[0], points[1]
    slope = (more - excess) / (second - first)
    guess = first - 1.1 * excess / slope if slope > 0 else floor
    return max(guess, _between(floor, first))


def _between(low: float, high: float) -> float:
    return (low + high) / 2
