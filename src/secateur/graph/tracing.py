"""`trace`: run a model once on labels, and find out which of its channels go together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar, get_args

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from secateur.errors import TraceError, better_sizes
from secateur.graph import building
from secateur.graph import rules as rules  # noqa: PLC0414 - imported to register them
from secateur.graph.atoms import Place
from secateur.graph.calls import Call, arguments_of, calls_of
from secateur.graph.coupling import couple
from secateur.graph.forms import Forms, equalities_of
from secateur.graph.groups import Attention, CallShape, Graph, TensorInfo
from secateur.graph.modes import Watch
from secateur.graph.recording import Recorder
from secateur.graph.running import LabelRun, running
from secateur.graph.staging import Modules, modules_of, same_dice, staged, tensors_of, uncollected

StandIn = Callable[[str, torch.Tensor], torch.Tensor]

_JIT = (
    "The model is scripted or traced (torch.jit), so its code cannot be followed. "
    "Pass the module that it was made from; script the pruned model afterwards."
)
_PARALLEL = (
    "The model is wrapped for several devices, and its calls are not the module's own. "
    "Pass `model.module`; wrap the pruned model afterwards."
)
# By class name, so that nothing is imported for the question: what stands for a module in training or deployment.
WRAPPERS = {
    "ScriptModule": _JIT,
    "ScriptFunction": _JIT,
    "DataParallel": _PARALLEL,
    "DistributedDataParallel": _PARALLEL,
    "FullyShardedDataParallel": _PARALLEL,
    "OptimizedModule": (
        "The model is compiled (torch.compile), and compiled code cannot be cut. "
        "Pass `model._orig_mod`; compile the pruned model afterwards."
    ),
    "ExportedProgram": (
        "The model is an exported program (torch.export), in which all sizes are numbers. "
        "Pass the module that it was exported from; export the pruned model afterwards."
    ),
    "partial": (
        "The model is a functools.partial, which is no module. Pass the module itself, and give the arguments that the "
        'partial adds in the example: (x, True), or {"x": x, "flag": True}.'
    ),
}
R = TypeVar("R", bound=Recorder)


def trace(model: nn.Module, example: Any, free_outputs: bool = False, attention: Attention = "auto") -> Graph:
    """Find out which channels of a model are coupled.

    The model runs on tensors without data (on real ones only if its forward reads values); it is left as it was. It is
    traced as in evaluation; what decides something by `training` is run in training, too.

    Args:
        model: any module that runs on `example`, on any device.
        example: a tensor, a tuple of arguments, a dict of keyword arguments, or a list of such calls.
        free_outputs: the channels that leave the model may be cut, too (a backbone on its way into a host).
        attention: what is cut of attention: "dims", as many channels of every head; "heads", whole heads; "auto", the
            channels, or the heads of the whole model if the scale of some attention, such as 1 / sqrt(head_dim), cannot
            be kept by multiplying weights.

    Raises:
        TraceError: the model itself fails on the example (its own error is shown).

    Example:
        >>> graph = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)), torch.zeros(1, 3, 9, 9))
        >>> [(group.name, group.size) for group in graph.groups]
        [('0', 8)]
    """
    _check_model(model)
    with uncollected():
        return _graph(model, calls_of(example), free_outputs, attention)


def _graph(model: nn.Module, calls: tuple[Call, ...], free_outputs: bool, attention: Attention) -> Graph:
    recorder = record(model, calls, free_outputs=free_outputs)
    heads = _heads(recorder, attention)
    if heads:
        recorder = record(model, calls, free_outputs=free_outputs, heads=heads)
    modules = modules_of(model, again=True)
    tensors = building.with_conv_groups(tensors_of(modules), recorder.atoms)
    coupling = couple(recorder)
    forms = Forms(coupling)
    layers, idle = building.layers_of(modules, tensors, coupling)
    return Graph(
        groups=building.groups_of(coupling),
        protected=building.protected_of(coupling),
        tensors=tensors,
        layers=layers,
        unreached=idle,
        calls=tuple(shape_of(call) for call in calls),
        find_equalities=partial(equalities_of, forms),
        find_costs=partial(building.costs_of, modules, tensors, forms, recorder.counts),
        model=model,
        coupling=coupling,
        example=calls,
        free_outputs=free_outputs,
        on_data=recorder.on_data,
        attention=attention,
        heads=heads,
        training_batch=recorder.training_batch,
    )


def _heads(run: Recorder, attention: Attention) -> frozenset[Place]:
    """Return the axes along which whole heads are cut."""
    if attention not in get_args(Attention):
        raise TraceError(f"attention={attention!r} is not known. Say one of {', '.join(get_args(Attention))}.")
    if attention == "auto":
        return run.heads_to_cut()
    return frozenset(run.attending) if attention == "heads" else frozenset()


def _check_model(model: Any) -> None:
    for kind in type(model).__mro__:
        if kind.__module__.partition(".")[0] in ("torch", "functools") and kind.__name__ in WRAPPERS:
            raise TraceError(WRAPPERS[kind.__name__])
    if isinstance(model, type):
        raise TraceError(
            f"The model is the class {model.__name__} itself. Pass a module made of it: {model.__name__}()."
        )
    if not isinstance(model, nn.Module):
        raise TraceError(f"The model is a {type(model).__name__}, not a torch.nn.Module. Pass the module itself.")
    for path, module in _first_of_each_kind(model):
        if type(module).__name__ == "OptimizedModule":
            raise TraceError(
                f"{path} in the model is compiled (torch.compile), and compiled code cannot be cut. Put "
                f"`{path}._orig_mod` in its place; compile the pruned model afterwards."
            )
        if UninitializedParameter in map(type, module._parameters.values()):
            raise TraceError(
                f"{path or type(module).__name__} is lazy: the shapes of its parameters come when it first runs. "
                "Run the model once on the example, then pass it."
            )


def _first_of_each_kind(model: nn.Module) -> Modules:
    """List a module of each class: a lazy one leaves its class when it first runs, so one tells of all."""
    found: dict[type, tuple[str, nn.Module]] = {}
    for path, module in modules_of(model):
        found.setdefault(type(module), (path, module))
    return list(found.values())


def shape_of(call: Call) -> CallShape:
    """Return the shapes and dtypes of the tensors of a call, and how they are passed."""
    tensors = call.tensors()
    return CallShape(
        tuple(tuple(tensor.shape) for tensor in tensors),
        tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors),
        arguments_of(call),
    )


def record(
    model: nn.Module,
    calls: Sequence[Call],
    free_outputs: bool = False,
    integers: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    full: Mapping[str, TensorInfo] | None = None,
    heads: frozenset[Place] = frozenset(),
) -> Recorder:
    """Run a model on fresh atoms and return what was recorded.

    Args:
        model: the model.
        calls: what it is called with.
        free_outputs: do not fix what leaves the model.
        integers: new values of attributes, for a run at other widths.
        shapes: new shapes of tensors by first name, for a run at other widths (on tensors without data only).
        full: the tensors at full width, for such a run.
        heads: the axes along which whole heads are cut.
    """
    try:
        with uncollected():
            return recorded(Recorder(model, shapes, full, heads=heads), model, calls, free_outputs, integers)
    except Exception as error:
        if shapes is not None or any(parameter.is_meta for parameter in model.parameters()):
            raise TraceError(
                f"The model does not run on tensors without data: {type(error).__name__}: {error}"
            ) from error
        return _recorded_on_data(model, calls, free_outputs, heads)


def _recorded_on_data(model: nn.Module, calls: Sequence[Call], free_outputs: bool, heads: frozenset[Place]) -> Recorder:
    try:
        return recorded(Recorder(model, on_data=True, heads=heads), model, calls, free_outputs, None)
    except Exception as error:
        what = f"{type(error).__name__}: {str(error).rstrip('. ')}"
        if _runs_alone(model, calls):
            raise TraceError(
                f"The model runs, but secateur cannot follow it: {what}. Please report it with the model's code."
            ) from error
        raise TraceError(
            f"The model fails on the example by itself: {what}. "
            "Check the shape and type of the example, and that the model runs on it."
            + better_sizes(tensor.shape for call in calls for tensor in call.tensors())
        ) from error


def _runs_alone(model: nn.Module, calls: Sequence[Call]) -> bool:
    """Tell whether a copy of a model runs on its example, without anything of ours."""
    try:
        alone = copy.deepcopy(model).eval()
        with same_dice(), torch.no_grad():
            for call in (call.map(_on(_device_of(model))) for call in calls):
                alone(*call.args, **call.kwargs)
    except Exception:  # noqa: BLE001 - a foreign model's code may fail in any way
        return False
    return True


def recorded(
    run: R, model: nn.Module, calls: Sequence[Call], free_outputs: bool, integers: Mapping[str, int] | None = None
) -> R:
    """Run a model with a recorder and return that, full."""
    given = calls
    calls = [call.map(_on(_device_of(model)) if run.on_data else _without_data) for call in given]
    stand_in = run.with_data if run.on_data else run.without_data
    watch = Watch(run)
    run_calls(run, model, calls, stand_in, free_outputs, integers, training=False, watch=watch)
    run.training_batch = (1 + run.single_values) * watch.asked
    if run.idle() or not watch.settled:
        run.counting, run.training_batch = False, 0
        _also_in_training(run, model, given, calls, stand_in, free_outputs, integers)
    if run.on_data and run.idle():
        run.hold_all()
    run.settle_scales()
    return run


def _also_in_training(
    run: Recorder,
    model: nn.Module,
    given: Sequence[Call],
    calls: Sequence[Call],
    stand_in: StandIn,
    free_outputs: bool,
    integers: Mapping[str, int] | None,
) -> None:
    """Paths that only training takes; a model that cannot be trained on the example keeps what evaluation reached."""
    mark = run.mark()
    ways: list[tuple[StandIn, Sequence[Call]]] = [(stand_in, calls)]
    if not run.shapes and not any(parameter.is_meta for parameter in model.parameters()):
        ways.append((run.with_data, [call.map(_on(_device_of(model))) for call in given]))
    for way, inputs in ways:  # some code does not run without data, and some norms cannot be trained on a single value
        for batch in (1, 2):
            try:
                larger = [call.map(partial(repeated, times=batch)) for call in inputs]
                run_calls(run, model, larger, way, free_outputs, integers, training=True)
                run.training_batch = batch if way is stand_in else 0
                return
            except Exception:  # noqa: BLE001 - a foreign model's code may fail in any way
                run.back_to(mark)


def repeated(tensor: torch.Tensor, times: int) -> torch.Tensor:
    """Return a batch several times over."""
    return torch.cat([tensor] * times) if tensor.ndim and times > 1 else tensor


def run_calls(
    run: LabelRun,
    model: nn.Module,
    calls: Sequence[Call],
    stand_in: StandIn,
    free_outputs: bool,
    integers: Mapping[str, int] | None,
    training: bool,
    watch: Watch | None = None,
) -> None:
    """Run every call on labels; what leaves the model is fixed, or noted if it is free."""
    with (
        staged(model, stand_in, run, integers, training),
        running(run),
        watch or nullcontext(),
    ):
        for call in calls:
            output = model(*call.args, **call.kwargs)
            _emit(run, model, output, free_outputs)


def _emit(run: LabelRun, model: nn.Module, output: Any, free: bool) -> None:
    run.operation, run.place = None, _forward_of(model)
    for tensor in tensors_in(output):
        run.emits(tensor)
        for sheet in run.sheets(tensor):
            if free:
                run.hands_out(sheet)
            else:
                run.fix(sheet, "these channels leave the model")
    run.place = None


def _forward_of(model: nn.Module) -> tuple[str, str]:
    code = getattr(type(model).forward, "__code__", None)
    return ("" if code is None else f"{code.co_filename}:{code.co_firstlineno}", type(model).__name__)


def tensors_in(value: Any, depth: int = 8) -> list[torch.Tensor]:
    """Return the tensors in an output: in containers, iterators, dataclasses and other objects, to some depth."""
    if isinstance(value, torch.Tensor):
        return [value]
    if depth == 0 or value is None or isinstance(value, (str, bytes, int, float, bool, nn.Module, type)):
        return []
    if isinstance(value, Mapping):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, (list, tuple, set, Iterator)):
        parts = value
    else:
        slots = [slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())]
        parts = [*getattr(value, "__dict__", {}).values(), *(getattr(value, slot, None) for slot in slots)]
    return [tensor for part in parts for tensor in tensors_in(part, depth - 1)]


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta")


def _on(device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.detach().to(device)


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
