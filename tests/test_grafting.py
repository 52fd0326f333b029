"""`graft`: a pruned part goes back into any host that holds it, and the host equals itself with a masked part."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict

import pytest
import torch
from torch import nn

import secateur
from secateur.models import MobileNetV2, MODNet
from tests import torchvision_operators
from tests.oracle import relative_error
from tests.test_attention_policy import Fused
from tests.zoo.blocks import conv, conv_norm, pooled_head
from tests.zoo.tokens import TOKENS

PICTURE = torch.rand(2, 3, 32, 32)


class Body(nn.Module):
    """A little residual backbone with two stages; hands out both, or classes if it has a head."""

    def __init__(self, head: bool = True):
        super().__init__()
        self.stem, self.first, self.second = conv_norm(3, 16), conv_norm(16, 16), conv_norm(16, 24)
        self.head = pooled_head(24) if head else None

    def forward(self, x):
        x = self.stem(x)
        x = x + self.first(x)
        y = self.second(x)
        return (x, y) if self.head is None else self.head(y)


class TwoHeads(nn.Module):
    """Classes and a map from one backbone without a head."""

    def __init__(self):
        super().__init__()
        self.body, self.classes, self.map = Body(head=False), pooled_head(24), conv(16, 2)

    def forward(self, x):
        low, high = self.body(x)
        return self.classes(high), self.map(low)


class Siamese(nn.Module):
    """The part runs on two pictures; their features are compared."""

    def __init__(self):
        super().__init__()
        self.body, self.compare = Body(head=False), conv(24, 3)

    def forward(self, a, b):
        return self.compare(self.body(a)[1] - self.body(b)[1])


class Nested(nn.Module):
    """A part inside a part, under two names."""

    def __init__(self):
        super().__init__()
        self.outer = TwoHeads()
        self.again = self.outer.body
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.outer(x)[0]), self.again(x)[0].mean((1, 2, 3))


class Towers(nn.Module):
    """A picture and a text meet in one space."""

    def __init__(self):
        super().__init__()
        self.image, self.to_space = Body(head=False), nn.Linear(24, 12)
        self.words, self.text = nn.Embedding(20, 16), nn.Linear(16, 12)

    def forward(self, picture, tokens):
        a, b = self.to_space(self.image(picture)[1].mean((2, 3))), self.text(self.words(tokens).mean(1))
        return nn.functional.normalize(a, dim=-1) @ nn.functional.normalize(b, dim=-1).T


class Taught(nn.Module):
    """A student beside an average of its past, which stays as it is."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = Body(), Body()
        self.teacher.requires_grad_(False)

    def forward(self, x):
        return self.student(x), self.teacher(x)


class UNet(nn.Module):
    """A decoder over the stages of an encoder."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        widths = encoder.feature_info.channels()
        self.up = nn.ModuleList(conv(a + b, b) for a, b in zip(widths[::-1], widths[-2::-1], strict=False))
        self.out = conv(widths[0], 1)

    def forward(self, x):
        *others, x = self.encoder(x)
        for up, skip in zip(self.up, others[::-1], strict=True):
            x = torch.relu(up(torch.cat([nn.functional.interpolate(x, size=skip.shape[2:]), skip], 1)))
        return self.out(x)


def without_head():
    """A part that hands out feature maps, pruned at these, too."""
    return Body(head=False), {"free_outputs": True}


def torchvisions(name, **options):
    if not torchvision_operators.declare():
        pytest.skip("torchvision is not installed")
    from torchvision import models

    return models.get_model(name, weights=None, **options)


def timms(name, **options):
    torchvision_operators.declare()
    return pytest.importorskip("timm", reason="timm is not installed").create_model(name, **options)


def pyramid():
    """The backbone of Faster R-CNN: ResNet's stages and a feature pyramid."""
    body = torchvisions("resnet18")
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.ops import FeaturePyramidNetwork

    stages = IntermediateLayerGetter(body, {f"layer{n}": str(n) for n in range(1, 5)})
    return nn.Sequential(OrderedDict(body=stages, fpn=FeaturePyramidNetwork([64, 128, 256, 512], 32)))


SMALL = torch.rand(1, 3, 64, 64)
TEXT = (PICTURE, torch.randint(0, 20, (2, 5)))
PAIRS = {
    "MODNet": (MobileNetV2, MODNet, "backbone.model", SMALL, SMALL),
    "two heads": (without_head, TwoHeads, "body", PICTURE, PICTURE),
    "siamese": (without_head, Siamese, "body", PICTURE, (PICTURE, PICTURE.flip(3))),
    "a part in a part": (without_head, Nested, "outer.body", PICTURE, PICTURE),
    "by its other name": (without_head, Nested, "again", PICTURE, PICTURE),
    "image tower": (without_head, Towers, "image", PICTURE, TEXT),
    "student": (Body, Taught, "student", PICTURE, PICTURE),
    "FCN": (
        lambda: torchvisions("resnet50", replace_stride_with_dilation=[False, True, True]),
        lambda: torchvisions("fcn_resnet50", weights_backbone=None),
        "backbone",
        SMALL,
        SMALL,
    ),
    "DeepLabV3": (
        lambda: torchvisions("mobilenet_v3_large", dilated=True).features,
        lambda: torchvisions("deeplabv3_mobilenet_v3_large", weights_backbone=None),
        "backbone",
        SMALL,
        SMALL,
    ),
    "LR-ASPP": (
        lambda: torchvisions("mobilenet_v3_large", dilated=True),
        lambda: torchvisions("lraspp_mobilenet_v3_large", weights_backbone=None),
        "backbone",
        SMALL,
        SMALL,
    ),
    "U-Net": (
        lambda: timms("resnet18"),
        lambda: UNet(timms("resnet18", features_only=True)),
        "encoder",
        SMALL,
        SMALL,
    ),
    "pyramid": (lambda: torchvisions("resnet18"), pyramid, "body", SMALL, SMALL),
}


def made(factory):
    found = factory()
    model, options = found if isinstance(found, tuple) else (found, {})
    return model.eval(), options


def trained(model):
    """Stand in for training: change every weight and statistic."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor), alpha=0.3)
    return model


def within(model, at):
    return {
        name.removeprefix(f"{at}."): tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if name.startswith(f"{at}.")
    }


@pytest.mark.parametrize("pair", PAIRS)
def test_a_grafted_host_equals_the_host_with_a_masked_part(pair):
    make_part, make_host, at, part_example, host_example = PAIRS[pair]
    torch.manual_seed(0)
    (part, options), (host, _) = made(make_part), made(make_host)
    small, plan = secateur.prune(part, part_example, ratio=0.5, min_channels=2, **options)
    donor = trained(small)
    before = copy.deepcopy(host.state_dict())
    grafted, whole = secateur.graft(host, plan, at, donor, host_example)
    assert type(grafted) is type(host)
    assert whole.proof.structure
    assert whole.proof.mask_error < 1e-9
    assert relative_error(host, whole, grafted, host_example, "mask") < 1e-9
    theirs, own = donor.state_dict(), within(grafted, at)
    start = next(start for start in ("", "features.") if any(start + name in plan.keep for name in own))
    common = [name for name in own if start + name in theirs]
    assert any(start + name in plan.keep for name in common)
    for name in common:
        torch.testing.assert_close(own[name].detach(), theirs[start + name], rtol=0, atol=0)
    for name, tensor in before.items():
        torch.testing.assert_close(host.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)
    elsewhere = [name for name in before if not name.startswith(f"{at}.") and name not in whole.keep]
    for name in set(elsewhere) - set(within_aliases(grafted, at)):
        torch.testing.assert_close(grafted.state_dict()[name], before[name], rtol=0, atol=0, equal_nan=True)


def within_aliases(model, at):
    """Every name of the tensors of a part."""
    inside = {id(tensor) for tensor in within(model, at).values()}
    return [name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in inside]


class Coupled(nn.Module):
    """A host that ties two stages of its part: what was free alone goes together here."""

    def __init__(self):
        super().__init__()
        self.body, self.out = Wide(), conv(16, 2)

    def forward(self, x):
        low, high = self.body(x)
        return self.out(low + high)


class Wide(nn.Module):
    """Two stages of one width, each free when the outputs are."""

    def __init__(self):
        super().__init__()
        self.first, self.second = conv_norm(3, 16), conv_norm(16, 16)

    def forward(self, x):
        low = self.first(x)
        return low, self.second(low)


class HandsOut(nn.Module):
    """A host that hands the features of its part out."""

    def __init__(self):
        super().__init__()
        self.body = Wide()

    def forward(self, x):
        return self.body(x)


@pytest.fixture
def wide():
    torch.manual_seed(0)
    part = Wide().eval()
    return *secateur.prune(part, PICTURE, ratio=0.5, min_channels=2, free_outputs=True), part


def kept(plan, name):
    return set(plan.keep[name][0])


def test_what_the_host_ties_is_told_and_may_come_back_or_go_too(wide):
    small, plan, _ = wide
    torch.manual_seed(1)
    host = Coupled().eval()
    one, other = kept(plan, "first.0.weight"), kept(plan, "second.0.weight")
    with pytest.raises(secateur.GraftError, match=r"channels .* of body\.first\.0 .*conflict=\"restore\".*\"extend\""):
        secateur.graft(host, plan, "body", small)
    restored, whole = secateur.graft(host, plan, "body", small, conflict="restore")
    assert kept(whole, "body.first.0.weight") == kept(whole, "body.second.0.weight") == one | other
    for index, place in enumerate(sorted(one | other)):  # the donor's filters, and the host's where it has none
        own = restored.body.first[0].weight[index]
        if place in one:
            assert torch.equal(own, small.first[0].weight[sorted(one).index(place)])
        else:
            assert torch.equal(own, host.body.first[0].weight[place])
    extended, whole = secateur.graft(host, plan, "body", small, conflict="extend")
    assert kept(whole, "body.first.0.weight") == one & other
    assert extended.out.weight.shape == (2, len(one & other), 3, 3)


def test_what_leaves_the_host_can_only_come_back(wide):
    small, plan, _ = wide
    host = HandsOut().eval()
    with pytest.raises(secateur.GraftError, match=r"these channels leave the model.*They must come back"):
        secateur.graft(host, plan, "body", small)
    with pytest.raises(secateur.GraftError, match="These cannot go in the host"):
        secateur.graft(host, plan, "body", small, conflict="extend")
    grafted, whole = secateur.graft(host, plan, "body", small, conflict="restore")
    assert whole.is_empty
    assert grafted(PICTURE)[1].shape == host(PICTURE)[1].shape


def test_free_outputs_are_narrower_and_proved(wide):
    small, plan, part = wide
    part, small, picture = part.double(), small.double(), PICTURE.double()
    for masked, found, name in zip(
        secateur.mask(part, plan)(picture), small(picture), ("first.0.weight", "second.0.weight"), strict=True
    ):
        torch.testing.assert_close(masked[:, list(plan.keep[name][0])], found, rtol=0, atol=1e-12)
    assert secateur.verify(part, small, secateur.Plan.from_json(plan.to_json()), picture).structure
    with pytest.raises(secateur.ProofError):  # a plan that says nothing of it does not get away with it
        secateur.verify(part, small, dataclasses.replace(plan, free_outputs=False), picture)


def test_grafts_and_cuts_compose():
    torch.manual_seed(0)
    host = Taught().eval()
    first, plan_a = secateur.prune(host.student, PICTURE, ratio=0.5, min_channels=2)
    second, plan_b = secateur.prune(host.teacher, PICTURE, ratio=0.25, min_channels=2)
    one, whole_a = secateur.graft(host, plan_a, "student", first)
    both, whole_b = secateur.graft(one, plan_b, "teacher", second)
    whole = whole_b.after(whole_a)
    assert secateur.verify(host, both, whole, PICTURE).values
    assert relative_error(host, whole, both, PICTURE) < 1e-9
    again, later = secateur.prune(both, PICTURE, ratio=0.25, min_channels=2)
    assert relative_error(host, later.after(whole), again, PICTURE) < 1e-9
    pruned, earlier = secateur.prune(host, PICTURE, ratio=0.25, min_channels=2, ignore=["student"])
    assert "student.stem.0.weight" not in earlier.keep
    grafted, then = secateur.graft(pruned, plan_a, "student", first)
    assert relative_error(host, then.after(earlier), grafted, PICTURE) < 1e-9


def test_attention_that_was_rescaled_keeps_the_donors_numbers():
    torch.manual_seed(0)
    part = Fused().eval()
    small, plan = secateur.prune(part, TOKENS, ratio=0.5, min_channels=1)
    assert plan.scales
    host = nn.Sequential(Fused(), nn.Linear(4, 3)).eval()
    grafted, whole = secateur.graft(host, plan, "0", trained(small))
    assert relative_error(host, whole, grafted, TOKENS, "mask") < 1e-9
    for name, tensor in small.state_dict().items():
        assert torch.equal(grafted[0].state_dict()[name], tensor)


class TestRefusals:
    def plan(self):
        return secateur.prune(Body().eval(), PICTURE, ratio=0.5, min_channels=2)

    def test_a_misspelt_part(self):
        with pytest.raises(secateur.GraftError, match=r"Taught holds no module called 'studnt'\. Did you mean student"):
            secateur.graft(Taught(), self.plan()[1], "studnt")

    def test_another_part(self):
        with pytest.raises(secateur.GraftError, match="has none of the tensors that the plan cuts, such as stem"):
            secateur.graft(Taught(), self.plan()[1], "student.head.0", example=PICTURE)

    def test_a_part_of_another_width(self):
        host = Taught()
        host.student.stem = conv_norm(3, 20)
        host.student.first = conv_norm(20, 20)
        host.student.second = conv_norm(20, 24)
        with pytest.raises(secateur.GraftError, match=r"student\.stem\.0\.weight has shape \(20, 3, 3, 3\), the plan"):
            secateur.graft(host, self.plan()[1], "student")

    def test_a_donor_that_was_not_cut(self):
        with pytest.raises(secateur.GraftError, match=r"donor's stem\.0\.weight has shape \(16, 3, 3, 3\), the plan"):
            secateur.graft(Taught(), self.plan()[1], "student", Body())

    def test_a_donor_without_a_tensor(self):
        small, plan = self.plan()
        state = small.state_dict()
        del state["stem.0.weight"]
        with pytest.raises(secateur.GraftError, match=r"donor has no tensor stem\.0\.weight"):
            secateur.graft(Taught(), plan, "student", state)

    def test_a_host_that_is_called_otherwise(self):
        small, plan = secateur.prune(Body(head=False).eval(), PICTURE, ratio=0.5, free_outputs=True, min_channels=2)
        with pytest.raises(secateur.GraftError, match=r"Siamese does not run as the part did.*example="):
            secateur.graft(Siamese(), plan, "body", small)

    def test_a_word_that_is_no_choice(self):
        with pytest.raises(secateur.GraftError, match="Say one of error, restore, extend"):
            secateur.graft(Taught(), self.plan()[1], "student", conflict="restored")


@pytest.mark.parametrize("size", ["full", "small"])
def test_a_second_donor_gives_what_lies_outside_of_the_part(size):
    torch.manual_seed(0)
    host, other = SideBySide().eval(), SideBySide().eval()
    small, plan = secateur.prune(host.body, PICTURE, ratio=0.5, min_channels=2, free_outputs=True)
    own, whole = secateur.graft(host, plan, "body", small)
    second = other if size == "full" else secateur.cut(other, whole)
    grafted, again = secateur.graft(host, plan, "body", small, rest=second)
    assert again.keep == whole.keep
    theirs = secateur.cut(other, whole)
    for name, tensor in grafted.state_dict().items():
        source = own if name.startswith("body.") else theirs
        assert torch.equal(tensor, source.state_dict()[name]), name
        assert name.startswith("body.") or not torch.equal(tensor, own.state_dict()[name]) or "num_batches" in name


class Placed(nn.Module):
    """A part with a table that no state dict holds, and a last layer that nobody cuts."""

    def __init__(self):
        super().__init__()
        self.a, self.c = conv(3, 16), conv(16, 4)
        self.register_buffer("grid", torch.rand(1, 16, 1, 1), persistent=False)

    def forward(self, x):
        return self.c(torch.relu(self.a(x) + self.grid))


def test_a_state_dict_is_a_donor_if_it_is_whole_and_the_proof_says_what_it_was_of():
    part = Placed().eval()
    host = nn.Sequential(OrderedDict(part=Placed(), last=conv(4, 2))).eval()
    small, plan = secateur.prune(part, PICTURE, ratio=0.5, min_channels=1, free_outputs=False)
    state = trained(small).state_dict()
    grafted, whole = secateur.graft(host, plan, "part", state, PICTURE)
    assert torch.equal(grafted.part.a.weight, state["a.weight"])
    assert "before the weights were replaced by the donor's" in str(whole.proof)
    assert "replaced" not in str(secateur.graft(host, plan, "part", None, PICTURE)[1].proof)
    del state["c.bias"]
    with pytest.raises(secateur.GraftError, match=r"donor has no tensor c\.bias, which the part holds"):
        secateur.graft(host, plan, "part", state, PICTURE)


def test_a_second_donor_that_does_not_fit_is_refused():
    host = SideBySide().eval()
    small, plan = secateur.prune(host.body, PICTURE, ratio=0.5, min_channels=2, free_outputs=True)
    with pytest.raises(secateur.GraftError, match=r"second donor has no tensor left\.weight"):
        secateur.graft(host, plan, "body", small, rest=host.body)
    wrong = host.state_dict() | {"left.weight": torch.zeros(3, 16, 3, 3)}
    with pytest.raises(secateur.GraftError, match=r"second donor's left\.weight has shape \(3, 16, 3, 3\); the host's"):
        secateur.graft(host, plan, "body", small, rest=wrong)


class SideBySide(nn.Module):
    """A host that reads both outputs of its part, each with weights of its own."""

    def __init__(self):
        super().__init__()
        self.body, self.left, self.right = Wide(), nn.Conv2d(16, 2, 3), nn.Conv2d(16, 2, 3)

    def forward(self, x):
        low, high = self.body(x)
        return self.left(low) + self.right(high)
