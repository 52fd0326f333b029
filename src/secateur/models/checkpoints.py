"""Fill a model from a checkpoint as it was published: matched by name, all or nothing, with a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from secateur.errors import ArtifactError
from secateur.models.files import read_tensors
from secateur.models.nestings import Nesting

WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every key
COUNTER = "n_averaged"  # beside the network in torch's AveragedModel
SHOWN = 3  # names in a message; the rest are counted


@dataclass(frozen=True)
class Mismatch:
    """A tensor that is of one shape in the file and of another in the model."""

    name: str
    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.file_shape} in the file, {self.model_shape} in the model"


@dataclass(frozen=True)
class LoadReport:
    """What `load_checkpoint` did: the model's tensors by their first names, the file's by the names it has for them."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # in the model, not in the file
    unexpected: tuple[str, ...]  # in the file, not in the model
    mismatched: tuple[Mismatch, ...]
    notes: tuple[str, ...]  # what was done to make the file fit, one sentence each

    @property
    def complete(self) -> bool:
        """Tell whether file and model hold the same tensors."""
        return not (self.missing or self.unexpected or self.mismatched)


@dataclass(frozen=True)
class _Slot:
    """A parameter or buffer of the model under all its names, without wrappers' prefixes."""

    name: str
    aliases: tuple[str, ...]
    tensor: torch.Tensor


@dataclass(frozen=True)
class _Entry:
    """A tensor of the file: the name it has there, and the name the model would have for it."""

    key: str
    name: str
    tensor: torch.Tensor


def load_checkpoint(model: nn.Module, path: str | Path, strict: bool = True) -> LoadReport:
    """Fill `model` in place from a published file, and tell what was found.

    Reads state dicts in `.safetensors` or as `torch.save` wrote them, also one level deep (`{"state_dict": ...}`), with
    or without the `module.` that DataParallel puts before every key, or what else a trainer puts there. A module that
    the model registers under two names may stand in the file under either or both. Where the model's class declares
    other `nestings` of its keys, they are tried too. With `strict=False` the model takes what fits, and the report says
    what did not.

    Raises:
        ArtifactError: the file cannot be read or trusted; with `strict` something is missing, unexpected or of another
            shape; without, next to nothing fits. The model is then as it was.

    Example:
        >>> import tempfile
        >>> from secateur.models.lenet import LeNet
        >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        ...     torch.save({"state_dict": LeNet().state_dict()}, file.name)
        ...     report = load_checkpoint(LeNet(), file.name)
        >>> len(report.loaded), report.complete
        (10, True)
    """
    stored = read_tensors(path)
    slots = _slots(model)
    if any(slot.tensor.is_meta for slot in slots):
        raise ArtifactError(
            f"{type(model).__name__} has its weights on the meta device, where nothing can be filled in. "
            "Give it memory first: model.to_empty(device='cpu')."
        )
    entries, notes = _best_reading(model, stored, slots)
    pairs = _paired(entries, slots, str(path))
    report = _report(pairs, entries, slots, notes)
    _check(report, model, path, len(stored), strict)
    with torch.no_grad():
        for slot, entry in pairs:
            if entry.tensor.shape == slot.tensor.shape:
                slot.tensor.copy_(entry.tensor)
    return report


def _slots(model: nn.Module) -> list[_Slot]:
    own = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}
    prefix = _wrapper_prefix(own)
    names: dict[int, list[str]] = {}
    for name, value in own.items():
        names.setdefault(id(value), []).append(name)
    return [
        _Slot(aliases[0], tuple(alias.removeprefix(prefix) for alias in aliases), own[aliases[0]])
        for aliases in names.values()
    ]


def _wrapper_prefix(names: Iterable[str]) -> str:
    names, prefix = list(names), ""
    while wrapper := next((w for w in WRAPPERS if names and all(name.startswith(prefix + w) for name in names)), ""):
        prefix += wrapper
    return prefix


def _common_prefix(names: Iterable[str]) -> str:
    """Return the module that all tensors lie in, as a trainer's module holds the network."""
    names, prefix = list(names), ""
    for part in names[0].split(".")[:-1] if names else ():
        if not all(name.startswith(f"{prefix}{part}.") for name in names):
            break
        prefix += f"{part}."
    return prefix


def _without(stored: Mapping[str, torch.Tensor], prefix: str) -> list[_Entry]:
    return [_Entry(key, key.removeprefix(prefix), tensor) for key, tensor in stored.items()]


def _best_reading(
    model: nn.Module, stored: Mapping[str, torch.Tensor], slots: Sequence[_Slot]
) -> tuple[list[_Entry], list[str]]:
    notes = []
    if COUNTER in stored and all(key.startswith(WRAPPERS[0]) for key in stored if key != COUNTER):
        stored = {key: tensor for key, tensor in stored.items() if key != COUNTER}
        notes.append(f"{COUNTER}, which AveragedModel keeps, was left out.")
    shapes = {alias: slot.tensor.shape for slot in slots for alias in slot.aliases}
    prefix = _wrapper_prefix(stored)
    plain = _without(stored, prefix)
    outer = _common_prefix(stored)
    if outer != prefix and _fitting(stripped := _without(stored, outer), shapes) > _fitting(plain, shapes):
        prefix, plain = outer, stripped
    notes += [f"Every key of the file begins with {prefix!r}, which was left out."] if prefix else []
    best, best_count, source = plain, _fitting(plain, shapes), ""
    for place, nesting in _nestings(model):
        entries = [_Entry(entry.key, _renamed(entry.name, place, nesting), entry.tensor) for entry in plain]
        count = _fitting(entries, shapes)
        if count > best_count:
            best, best_count, source = entries, count, nesting.source
    if source:
        notes.append(f"The keys are nested as those of {source}.")
    return best, notes


def _nestings(model: nn.Module) -> Iterator[tuple[str, Nesting]]:
    modules = dict(model.named_modules())
    prefix = _wrapper_prefix(f"{name}." for name in modules if name)
    for name, module in modules.items():
        place = f"{name}.".removeprefix(prefix) if name else ""
        for nesting in getattr(type(module), "nestings", ()):
            yield place, nesting


def _renamed(name: str, place: str, nesting: Nesting) -> str:
    return place + nesting.renamed(name.removeprefix(place)) if name.startswith(place) else name


def _fitting(entries: Sequence[_Entry], shapes: Mapping[str, torch.Size]) -> int:
    """Count the tensors that fit by name and shape; two that claim one name are no reading of the file at all."""
    if len({entry.name for entry in entries}) < len(entries):
        return -1
    return sum(shapes.get(entry.name) == entry.tensor.shape for entry in entries)


def _paired(entries: Sequence[_Entry], slots: Sequence[_Slot], path: str) -> list[tuple[_Slot, _Entry]]:
    by_name = {entry.name: entry for entry in entries}
    pairs = []
    for slot in slots:
        found = [by_name[alias] for alias in slot.aliases if alias in by_name]
        for other in found[1:]:
            if not torch.equal(found[0].tensor, other.tensor):
                raise ArtifactError(
                    f"{path} contradicts itself: {found[0].key} and {other.key} are one tensor of the model, and "
                    "differ in the file. Leave one of them out."
                )
        if found:
            pairs.append((slot, found[0]))
    return pairs


def _report(
    pairs: Sequence[tuple[_Slot, _Entry]], entries: Sequence[_Entry], slots: Sequence[_Slot], notes: Sequence[str]
) -> LoadReport:
    filled = {slot.name for slot, _ in pairs}
    known = {alias for slot in slots for alias in slot.aliases}
    absent = [slot.name for slot in slots if slot.name not in filled]
    counters = [name for name in absent if name.endswith("num_batches_tracked")]
    fits = [(slot, entry) for slot, entry in pairs if slot.tensor.shape == entry.tensor.shape]
    return LoadReport(
        loaded=tuple(slot.name for slot, _ in fits),
        missing=tuple(name for name in absent if name not in counters),
        unexpected=tuple(entry.key for entry in entries if entry.name not in known),
        mismatched=tuple(
            Mismatch(slot.name, tuple(entry.tensor.shape), tuple(slot.tensor.shape))
            for slot, entry in pairs
            if slot.tensor.shape != entry.tensor.shape
        ),
        notes=(*notes, *_counter_note(counters), *_dtype_notes(fits)),
    )


def _counter_note(counters: Sequence[str]) -> list[str]:
    # Files from before torch 0.4.1 lack the counters, which matter to nobody but norms without a momentum.
    return [f"{len(counters)} counters of batch norms are not in the file and stay as they are."] if counters else []


def _dtype_notes(fits: Sequence[tuple[_Slot, _Entry]]) -> list[str]:
    changes = [(str(entry.tensor.dtype), str(slot.tensor.dtype)) for slot, entry in fits]
    return [
        f"{changes.count(change)} tensors were converted from {change[0]} to {change[1]}."
        for change in dict.fromkeys(changes)
        if change[0] != change[1]
    ]


def _check(report: LoadReport, model: nn.Module, path: str | Path, stored: int, strict: bool) -> None:
    in_model = len(report.loaded) + len(report.missing) + len(report.mismatched)
    hardly_any = len(report.loaded) * 10 < min(stored, in_model) or not report.loaded
    if not hardly_any and (report.complete or not strict):
        return
    differences = [
        f"{len(names)} {what} ({', '.join(map(str, names[:SHOWN]))}{', ...' if len(names) > SHOWN else ''})"
        for names, what in (
            (report.missing, "missing"),
            (report.unexpected, "unexpected"),
            (report.mismatched, "of another shape"),
        )
        if names
    ]
    remedy = (
        "It is a checkpoint of another architecture: pass the model that it was saved from."
        if hardly_any
        else "Build the model with the arguments it was saved with, or load what fits with strict=False."
    )
    raise ArtifactError(
        f"{path} does not fit {type(model).__name__}: of {in_model} tensors {len(report.loaded)} fit; "
        f"{', '.join(differences)}. {remedy}"
    )
