"""The demo does the main job, on real pictures, and leaves what it says it leaves."""

from __future__ import annotations

import pytest

for package in ("skimage", "sklearn", "matplotlib"):
    pytest.importorskip(package)


@pytest.mark.slow
def test_the_demo_walks_the_whole_way(secateur):
    result = secateur("demo")
    assert result.code == 0
    for text in ("6.158 M", "2b. The whole MODNet", "after one epoch of recovery", "What to type next"):
        assert text in result.out
    assert result.out.count("Proof: values identical; structure sound") == 3
    assert secateur.files() == {"secateur-demo"}
    made = secateur.folder / "secateur-demo"
    assert sorted(path.name for path in made.iterdir()) == [
        "astronaut.png",
        "lenet-cut.safetensors",
        "modnet-cut.safetensors",
        "widths.png",
    ]
    assert secateur("verify", "secateur-demo/modnet-cut.safetensors").code == 0


def test_a_folder_that_cannot_be_made_is_refused(secateur):
    (secateur.folder / "taken").write_text("")
    result = secateur("demo", "--out", "taken")
    assert result.code == 1
    assert "--out" in result.err
