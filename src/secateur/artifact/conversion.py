"""Between our file and what people have: checkpoints, plans alone, whole models in pickles."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import reduce
from pathlib import Path

import torch
from torch import nn

from secateur.artifact.atomic import write_atomically
from secateur.artifact.format import opened
from secateur.artifact.pickles import is_pickle, read_pickled_model
from secateur.artifact.reading import Contents, full_size, read, restore
from secateur.artifact.writing import save
from secateur.errors import ArtifactError, CutError, PlanError
from secateur.models.checkpoints import load_checkpoint
from secateur.planning.plans import Plan
from secateur.surgery.cutting import copied, cut

PARAMETERS = (".pth", ".pt", ".bin")


def convert(
    source: str | Path,
    target: str | Path,
    model: nn.Module | None = None,
    plan: str | Path | None = None,
    trust: bool = False,
    whole: bool = False,
) -> str:
    """Write what is in `source` to `target` in the form that its name asks for, and say in a sentence what was done.

    `target` may be `OUT.safetensors`, our file, for which there must be a plan; `OUT.pth` (or `.pt`, `.bin`), the
    parameters alone, or the whole model in a pickle if `whole` asks for it; or `OUT.json`, the plan alone.

    Args:
        source: a file of `secateur.save`; a checkpoint, of the full-size model or of one as small as `plan` says; or,
            with `trust`, a whole model that `torch.save` wrote.
        target: the file to write; it appears whole or not at all.
        model: the full-size model, where `source` does not hold one of the zoo; it is not changed.
        plan: a plan as JSON, for a source that has none.
        trust: unpickle `source`, which can run any code. Only for files that you wrote yourself.
        whole: write the module itself in a pickle, which others can read only with the code of its class.

    Raises:
        ArtifactError: a file cannot be read or written, or something is missing for the form that is wanted.
    """
    suffix = Path(target).suffix
    if suffix not in (".safetensors", ".json", *PARAMETERS):
        raise ArtifactError(f"{target} names no form that is known. Write OUT.safetensors, OUT.pth or OUT.json.")
    contents = _contents(source)
    if contents is not None and plan is not None:
        raise ArtifactError(f"{source} has a plan of its own. Leave {plan} out.")
    if whole and suffix not in PARAMETERS:
        raise ArtifactError(f"{target} holds no whole model. Write OUT.pth, or leave whole out.")
    if suffix == ".json":
        write_atomically(target, _plan(source, contents, plan).to_json().encode())
        return "the plan alone, as JSON"
    if suffix in PARAMETERS and contents is not None and not whole:
        write_atomically(target, _pickled(dict(contents.tensors)))
        return "the parameters alone"
    small = _model(source, contents, model, plan, trust)
    if suffix == ".safetensors":
        converted = {"converted": Path(source).name}
        if contents is None:
            save(target, small, _plan(source, None, plan), provenance=converted)
        else:
            last = replace(contents.plan, proof=contents.proof)
            said = {name: value for name, value in contents.provenance.items() if name != "versions"}
            save(target, small, last, contents.plans[:-1], contents.preprocessing, {**said, **converted})
        return "weights and plan, as secateur's own file"
    write_atomically(target, _pickled(small if whole else small.state_dict()))
    return "the whole model in a pickle" if whole else "the parameters alone"


def _contents(source: str | Path) -> Contents | None:
    """Read a file of our own; None if it is another one."""
    try:
        return read(source)
    except ArtifactError:
        if is_pickle(source) or Path(source).suffix == ".json" or b'"secateur"' not in opened(source, 1 << 20)[0]:
            return None
        raise


def _plan(source: str | Path, contents: Contents | None, plan: str | Path | None) -> Plan:
    if contents is not None:
        return reduce(lambda earlier, later: later.after(earlier), contents.plans)
    if plan is None:
        raise ArtifactError(f"{source} has no plan, and none was given. Pass the plan that made the model (plan.json).")
    try:
        return Plan.from_json(opened(plan)[0].decode())
    except (PlanError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{plan} is no plan: {error}") from error


def _model(
    source: str | Path, contents: Contents | None, model: nn.Module | None, plan: str | Path | None, trust: bool
) -> nn.Module:
    """Return the pruned model with its weights."""
    if contents is not None:
        return restore(contents, full_size(contents) if model is None else model)
    if trust and is_pickle(source) and model is None:
        return read_pickled_model(source)
    if model is None:
        raise ArtifactError(
            f"{source} holds weights without a model. Pass the full-size model, or, if it is a whole model in a pickle "
            "that you wrote yourself, trust=True."
        )
    return _cut_and_filled(source, model, _plan(source, None, plan))


def _cut_and_filled(source: str | Path, model: nn.Module, plan: Plan) -> nn.Module:
    """Return a model cut by a plan, with the weights of a checkpoint from before or after the cut."""
    try:
        small, full = cut(model, plan), copied(model)
    except CutError as error:
        raise ArtifactError(f"The plan is not for this {type(model).__name__}: {error}") from error
    try:
        load_checkpoint(full, source)
    except ArtifactError as error:
        try:
            load_checkpoint(small, source)
        except ArtifactError as other:
            raise ArtifactError(f"{error} Nor does it fit as one that is small already: {other}") from error
        return small
    return cut(full, plan, inplace=True)


def _pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
