"""Makes a torchvision without its compiled operators (`pip install --no-deps`) importable, by declaring them."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

_ROIS = "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_SIZES = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_BACKWARD = f"(Tensor grad, {_ROIS.removeprefix('(Tensor input, ')}, {_SIZES}"
_STRIDES = "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w"
_DEFORMED = f"(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_STRIDES}"
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align{_ROIS}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward{_BACKWARD}, int sampling_ratio, bool aligned) -> Tensor",
    f"ps_roi_align{_ROIS}, int sampling_ratio) -> (Tensor, Tensor)",
    f"roi_pool{_ROIS}) -> (Tensor, Tensor)",
    f"ps_roi_pool{_ROIS}) -> (Tensor, Tensor)",
    f"deform_conv2d{_DEFORMED}, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor",
)

_libraries: list[Any] = []  # definitions live as long as their library


def declare() -> bool:
    """Declare the operators unless they are there; tell whether torchvision is installed at all."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    if not _libraries and not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in SCHEMAS:
            library.define(schema)
        _libraries.append(library)
    return True
