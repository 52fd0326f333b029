"""Networks timed side by side, in turns, apart from the process that asks: nobody is favoured, the machine survives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from secateur.errors import MeasurementError, SecateurError
from secateur.measurement import memory
from secateur.measurement.child import Child, DeadError, running_child
from secateur.measurement.statistics import Ratio, Spread, paired_ratio
from secateur.measurement.worker import Job
from secateur.runtimes.network import Network
from secateur.runtimes.registry import runtime_of
from secateur.runtimes.session import Options
from secateur.runtimes.shapes import Sizes

OPENINGS, ROUNDS = 5, 6  # rounds of each opening, at least; even, since every other one runs in the reverse order
MOST_ROUNDS = 40
MOST_OPENINGS = 15  # where a ratio is to be known well
FEW_OPENINGS, FEW_ROUNDS = 3, 2  # of networks so slow that more would take many times as long as was asked for
LATE, SOONEST = 4, 5.0  # times as long; but not before so many seconds
LONG_OPENING = 3000.0  # milliseconds, above which a network is not opened more often than need be
Ending = Literal["enough", "more", "failed"]
PAUSE = 0.004  # seconds between turns, in which another runtime's threads stop waiting for work


@dataclass(frozen=True)
class Cell:
    """What one network took in one runtime, precision and size; without times, `why` says why.

    Attributes:
        milliseconds: of a call in each round, a tuple for each opening.
        load_ms: of opening the network, alone in a fresh process.
        first_ms: of the first call there.
        peak_bytes: the most memory that this process held.
    """

    network: str
    runtime: str
    precision: str
    device: str
    sizes: Sizes
    milliseconds: tuple[tuple[float, ...], ...] = ()
    load_ms: float = 0.0
    first_ms: float = 0.0
    peak_bytes: int | None = None
    status: str = "measured"  # or "OOM" or "failed"
    why: str = ""

    @property
    def spread(self) -> Spread:
        """The median and the percentiles of a call, in milliseconds."""
        return Spread.of([one for opening in self.milliseconds for one in opening])

    @property
    def throughput(self) -> float:
        """Samples a second."""
        return 1e3 * (self.sizes.batch or 1) / self.spread.median

    def times_as_fast_as(self, first: Cell) -> Ratio | None:
        """Return how many times as fast as another network of the same turns this one is."""
        if not self.milliseconds or not first.milliseconds:
            return None
        return paired_ratio(first.milliseconds, self.milliseconds)


def contest(  # noqa: PLR0913 - each is a choice of its own
    networks: Sequence[Network],
    runtime: str,
    options: Options,
    sizes: Sizes,
    seconds: float = 5.0,
    tell: Callable[[str], object] = len,
    alone: bool = True,
    openings: int = OPENINGS,
    sure: Callable[[Ratio], bool] | None = None,
) -> list[Cell]:
    """Time networks in turns, in one runtime at one size, in a process with a limit on its memory.

    First each is opened alone, in a process of its own: what does not fit into memory, or cannot be opened, is found
    out there. Those that are left then run in one process, where they share whatever disturbs it.

    Args:
        networks: the candidates, of different names; times are compared with the first.
        runtime: the runtime's name.
        options: precision, device and threads.
        sizes: batch, height and width.
        seconds: so long the turns take in all, or longer for the least number of rounds.
        tell: hears what is being done.
        alone: open each alone first; without that there is no peak of memory.
        openings: how often each is opened again.
        sure: tells whether the ratio of the last network to the first is known well enough; until then they are opened
            again, `MOST_OPENINGS` times at the most.

    Raises:
        MeasurementError: there is no network, or two have one name.
        RuntimeUnfitError: there is no such runtime.
    """
    if not networks or len({network.name for network in networks}) < len(networks):
        raise MeasurementError("Networks are measured by name, each once. Name at least one, and none twice.")
    source = runtime_of(runtime).source
    job = Job(runtime, options, sizes, memory.allowance())
    taken = {network.name: _Taken() for network in networks}
    packed: dict[str, bytes] = {}
    for network in networks:
        tell(f"{network.name} alone")
        own = taken[network.name]
        try:
            packed[network.name] = network.packed(source)
        except SecateurError as error:
            own.status, own.why = "failed", str(error)
        if alone and not own.status:
            _open_alone(job, network.name, packed[network.name], own)
    left = {name: packed[name] for name, own in taken.items() if not own.status}
    _take_turns(job, left, taken, _Pace(openings, seconds / openings, sure), tell)
    return [
        Cell(network.name, runtime, options.precision, options.device, sizes, **taken[network.name].result())
        for network in networks
    ]


@dataclass(frozen=True)
class _Pace:
    openings: int
    seconds: float  # of turns in each, at least
    sure: Callable[[Ratio], bool] | None

    @property
    def per_process(self) -> int:
        """Openings in one process; it, too, lies where it lies, so that a ratio to be known well wants several."""
        return self.openings if self.sure is None else FEW_OPENINGS

    def is_enough(self, few: bool, taken: Sequence[_Taken]) -> bool:
        """Tell whether networks were opened often enough; `few`: less often than was asked for is enough."""
        opened = len(taken[0].milliseconds)
        if self.sure is None:
            return opened >= (FEW_OPENINGS if few else self.openings)
        if opened < 2 * FEW_OPENINGS:
            return False
        return opened >= MOST_OPENINGS or self.sure(paired_ratio(taken[-1].milliseconds, taken[0].milliseconds))


@dataclass
class _Taken:
    """What is known of a network so far; `status` is empty while all is well."""

    milliseconds: list[list[float]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    why: str = ""

    def result(self) -> dict[str, Any]:
        if self.status:
            return {"status": self.status, "why": self.why}
        return {"milliseconds": tuple(tuple(one) for one in self.milliseconds if one), **self.details}


def _ask(child: Child, taken: _Taken, *what: Any) -> Any:
    """Ask for something about a network; None, with the reason noted, if it did not work."""
    try:
        word, *said = child.ask(*what)
    except DeadError as error:
        taken.status, taken.why = "OOM" if "memory" in str(error) else "failed", str(error)
        return None
    if word == "failed":
        taken.status, taken.why = said
        return None
    return said[0]


def _open_alone(job: Job, name: str, network: bytes, taken: _Taken) -> None:
    with running_child(job) as child:
        details = _ask(child, taken, "open", name, network)
        if details is not None:
            taken.details = {**details, "peak_bytes": _ask(child, taken, "peak")}


def _take_turns(
    job: Job,
    packed: Mapping[str, bytes],
    taken: Mapping[str, _Taken],
    pace: _Pace,
    tell: Callable[[str], object],
) -> None:
    """Open all that are left, let each run in turn, and open them again, until there are rounds enough."""
    left = dict(packed)
    while left:
        ended: Ending = "more"
        while ended == "more":
            with running_child(job) as child:
                ended = _openings(child, left, taken, pace, tell)
        if ended == "enough":
            return
        for name in left:  # times of different company are not compared
            taken[name].milliseconds.clear()
        left = {name: network for name, network in left.items() if not taken[name].status}


def _openings(
    child: Child,
    packed: Mapping[str, bytes],
    taken: Mapping[str, _Taken],
    pace: _Pace,
    tell: Callable[[str], object],
) -> Ending:
    """Measure in one process, and tell whether that is enough, another one is to go on, or a network failed."""
    slow, begun = False, time.perf_counter()
    for opening in range(pace.per_process):
        for name, network in packed.items():
            tell(f"opening {name}")
            details = _ask(child, taken[name], "open", name, network)
            if details is None:
                return "failed"
            taken[name].details = taken[name].details or details
            slow |= sum(details.values()) > LONG_OPENING
            taken[name].milliseconds.append([])
        if not _rounds(
            child, packed, taken, pace, lambda text, opening=opening: tell(f"{text} of opening {opening + 1}")
        ):
            return "failed"
        late = time.perf_counter() - begun > pace.openings * max(LATE * pace.seconds, SOONEST)
        if pace.is_enough(slow or late, [taken[name] for name in packed]):
            return "enough"
    return "more"


def _rounds(
    child: Child,
    packed: Mapping[str, bytes],
    taken: Mapping[str, _Taken],
    pace: _Pace,
    tell: Callable[[str], object],
) -> bool:
    """Let each network run in turn, until there are rounds enough; tell whether none failed."""
    start = time.perf_counter()
    for number in range(MOST_ROUNDS):
        spent = time.perf_counter() - start
        enough = FEW_ROUNDS if spent > max(LATE * pace.seconds, SOONEST) else ROUNDS
        if number >= enough and number % 2 == 0 and spent > pace.seconds:
            break
        tell(f"round {number + 1}")
        for name in list(packed)[:: -1 if number % 2 else 1]:
            milliseconds = _ask(child, taken[name], "turn", name)
            if milliseconds is None:
                return False
            taken[name].milliseconds[-1].append(milliseconds)
            time.sleep(PAUSE)
    return True
