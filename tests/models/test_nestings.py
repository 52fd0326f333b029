from __future__ import annotations

from secateur.models import MobileNetV2
from secateur.models.mobilenetv2 import TORCHVISION
from secateur.models.nestings import Nesting
from tests.models.published import as_torchvision_nests


def test_first_rule_that_fits_the_beginning_renames():
    nesting = Nesting("elsewhere", ((r"a\.(\d)\.", r"b.\1."), (r"a\.", "c.")))
    assert nesting.renamed("a.1.weight") == "b.1.weight"
    assert nesting.renamed("a.x.weight") == "c.x.weight"
    assert nesting.renamed("z.a.1.weight") == "z.a.1.weight"


def test_torchvisions_keys_read_as_ours():
    for key in MobileNetV2().state_dict():
        assert TORCHVISION.renamed(as_torchvision_nests(key)) == key
