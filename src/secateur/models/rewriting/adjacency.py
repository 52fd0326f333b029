"""`foldable`: which batch norms are fed by one layer alone, found by watching the model run."""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from secateur.errors import CutError, TraceError
from secateur.graph.calls import calls_of
from secateur.surgery.cutting import copied

# Of exactly these types: a subclass may do more than its name says.
LAYERS = frozenset(
    (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
)
BATCH_NORMS = frozenset((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm))


def foldable(model: nn.Module, example: Any) -> list[tuple[str, str]]:
    """Return the names of layers, each with the name of the batch norm that can be folded into it.

    A copy of the model is run and watched. The norm uses its running statistics; it is fed by that layer alone, and
    nothing else reads or keeps what the layer returns, or reads the parameters of either. Layers and norms with hooks,
    parametrisations or a forward of their own are left out.

    Raises:
        TraceError: the model cannot be copied, or does not run on the example.

    Example:
        >>> foldable(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), torch.zeros(2, 4))
        [('0', '1')]
    """
    watched = evaluating_copy(model)
    watch = _Watch(watched)
    try:
        with torch.no_grad(), watch:
            results = [watched(*call.args, **call.kwargs) for call in calls_of(example)]
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(
            f"{type(model).__name__} does not run on the example ({type(error).__name__}: {error}). "
            "Pass an example that it runs on in evaluation mode."
        ) from error
    names = {module: name for name, module in watched.named_modules()}
    pairs = [(names[layer], names[norm]) for layer, norm in watch.pairs()]
    del results  # kept until here: what leaves the model is not the norm's alone
    return pairs


def evaluating_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model in evaluation mode.

    Raises:
        TraceError: the model cannot be copied.
    """
    try:
        return copied(model).eval()
    except CutError as error:
        raise TraceError(
            f"{type(model).__name__} cannot be copied ({error.__cause__}). Remove what cannot be copied from it."
        ) from error


def is_plain(module: nn.Module) -> bool:
    """Tell whether calling the module runs its class's forward, and nothing else."""
    hooks = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    return not any(hooks) and "forward" not in vars(module)


@dataclass
class _Output:
    """What a layer returned once; its storage is held, so that no other tensor can get its address."""

    layer: nn.Module
    tensor: weakref.ref[torch.Tensor]
    storage: torch.UntypedStorage
    channels_second: bool


class _Watch(TorchDispatchMode):
    """Notes what layers return, what norms are given, and which of them reads which storage: None for other code."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.outputs: dict[int, _Output] = {}  # by the address of their storage
        self.feeds: defaultdict[nn.Module, list[_Output | None]] = defaultdict(list)
        self.readers: defaultdict[int, set[nn.Module | None]] = defaultdict(set)
        self.running: list[nn.Module] = []
        for module in model.modules():
            if type(module) in LAYERS | BATCH_NORMS and is_plain(module):
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note who reads the operation's tensors, and run it."""
        reader = self.running[-1] if self.running else None
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor):
                self.readers[_address(value)].add(reader)
        return func(*args, **(kwargs or {}))

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.running.append(module)
        if isinstance(module, _BatchNorm):
            has_statistics = module.running_mean is not None and module.running_var is not None
            self.feeds[module].append(self._source(args) if has_statistics and not module.training else None)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], returned: torch.Tensor) -> None:
        self.running.pop()
        if not isinstance(module, _BatchNorm):
            channels_second = returned.dim() == _weight(module).dim()  # not so for (N, L, C), or without a batch
            storage = returned.untyped_storage()
            self.outputs[storage._cdata] = _Output(module, weakref.ref(returned), storage, channels_second)
            self.readers[storage._cdata] = set()  # whoever read that address before read another tensor

    def _source(self, args: tuple[Any, ...]) -> _Output | None:
        output = self.outputs.get(_address(args[0])) if args else None
        return output if output is not None and output.tensor() is args[0] else None

    def pairs(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield every layer and norm that always run as a pair, and of which nothing else sees anything."""
        calls = Counter(output.layer for output in self.outputs.values())
        for norm, feeds in self.feeds.items():
            layers = {feed.layer if feed else None for feed in feeds}
            layer = layers.pop()
            if layer is None or layers or calls[layer] != len(feeds):
                continue
            if self._owns(layer) and self._owns(norm) and all(self._is_private(one, norm) for one in feeds if one):
                yield layer, norm

    def _owns(self, module: nn.Module) -> bool:
        """Tell whether nothing but the module reads its parameters and statistics."""
        return all(self.readers[_address(value)] <= {module} for value in module.state_dict(keep_vars=True).values())

    def _is_private(self, output: _Output, norm: nn.Module) -> bool:
        """Tell whether nothing but the norm reads a layer's output, and nobody keeps it."""
        read_by_norm_only = self.readers[output.storage._cdata] == {norm}
        return read_by_norm_only and output.tensor() is None and output.channels_second


def _weight(layer: nn.Module) -> torch.Tensor:
    assert isinstance(layer.weight, torch.Tensor)
    return layer.weight


def _address(tensor: torch.Tensor) -> int:
    """Return where a tensor's storage is managed, also on the meta device; 0 for those without (sparse ones)."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return 0
