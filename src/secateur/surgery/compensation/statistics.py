"""Running statistics of norms, taken anew."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from secateur.calibration.batches import Part
from secateur.surgery.compensation.answers import answers_of, in_evaluation


def norms_of(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms of a model that keep running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]


def renew_statistics(model: nn.Module, parts: Sequence[Part]) -> None:
    """Take the running means and variances of batch norms over some samples (EagleEye, arXiv 2007.02491), in place.

    Norms that no sample reaches, as in a branch that runs only in training, keep theirs.
    """
    norms = norms_of(model)
    momenta = [norm.momentum for norm in norms]
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)} for norm in norms]
    with in_evaluation(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over parts
            norm.training = True
        try:
            for part in (one for one in parts if one.samples > 1):  # one sample alone may have no variance
                answers_of(model, part.call)
        finally:
            for norm, momentum, own in zip(norms, momenta, before, strict=True):
                norm.momentum = momentum
                if not norm.num_batches_tracked:
                    for name, buffer in own.items():
                        norm.get_buffer(name).copy_(buffer)
