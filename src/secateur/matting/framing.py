"""Where a person stands in the square that a network is trained on: scale, turn, mirror and place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.runtimes.packages import require

MOST_TURNED = 12.0  # degrees
BEYOND = 0.3  # of a free picture's width
_TOUCHES = 0.02  # mean matte along a side of the picture, above which the person is cut off there


@dataclass(frozen=True)
class Frame:
    """A map from a picture to a square.

    Attributes:
        size: pixels of the square's sides.
        scale: pixels of the square for one of the picture.
        matrix: (2, 3), from the picture resized by `scale` to the square.
        ends: whether the person ends at the left and right of the picture, where she was cut off.
    """

    size: int
    scale: float
    matrix: np.ndarray
    ends: bool = False

    def of_picture(self, colours: np.ndarray) -> np.ndarray:
        """Return a picture (H, W, 3) of uint8 in the square; what lies beyond its sides is a mirror image."""
        return self._mapped(colours, require("cv2").BORDER_REFLECT_101)

    def of_person(self, values: np.ndarray) -> np.ndarray:
        """Return colours or a matte of uint8 in the square; who is cut off at a side goes on beyond it."""
        return self._mapped(values, require("cv2").BORDER_REPLICATE, ends=self.ends and values.ndim == 2)

    def _mapped(self, values: np.ndarray, beyond: int, ends: bool = False) -> np.ndarray:
        cv2 = require("cv2")
        if self.scale < 1:  # bilinear reading of a larger picture would skip pixels
            wide, tall = (max(1, round(length * self.scale)) for length in (values.shape[1], values.shape[0]))
            values = cv2.resize(values, (wide, tall), interpolation=cv2.INTER_AREA)
            matrix = self.matrix
        else:
            matrix = self.matrix @ np.diag([self.scale, self.scale, 1])
        if ends:
            values = np.pad(values[:, 1:-1], ((0, 0), (1, 1)))
        return cv2.warpAffine(values, matrix, (self.size, self.size), flags=cv2.INTER_LINEAR, borderMode=beyond)


def random_frame(
    alpha: np.ndarray,
    size: int,
    short: tuple[float, float],
    rng: np.random.Generator,
    free: bool,
    farther: float = 1.0,
) -> Frame:
    """Return a frame for a person by her matte (H, W) of uint8.

    Args:
        alpha: the matte.
        size: pixels of the square's sides.
        short: the least and the largest length of the picture's short side in the square, in pixels.
        rng: decides everything.
        free: whether the picture may be smaller than the square, and reach beyond it. A side where the person is cut
            off stays at a side of the square, or beyond.
        farther: how much smaller than `short` says; below 1, the person may be seen to be cut off at the left and the
            right, as by a door.
    """
    lengths = np.array(alpha.shape[:2], float)
    scale = np.exp(rng.uniform(*np.log(short))) * farther / lengths.min()
    (top, left), (bottom, right) = _touched(alpha)
    apart = farther < 1 and left and right
    left, right = left and not apart, right and not apart
    least = [size if not free or (first and last) else 0 for first, last in ((top, bottom), (left, right))]
    scale = max(scale, *(np.array(least) / lengths))
    tall, wide = lengths * scale
    down = _place(tall, size, top, bottom, rng)
    across = _place(wide, size, left, right, rng, beyond=BEYOND if free else 0)
    matrix = np.array([[1, 0, across], [0, 1, down], [0, 0, 1]])
    turned = _turned(size, rng) @ _mirrored(size, rng) @ matrix
    return Frame(size, float(scale), turned[:2], ends=apart)


def near_by(
    colours: np.ndarray, alpha: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a square of a larger one with the person's head, or half of it, in it; its sides cut off the rest.

    Args:
        colours: the picture (H, W, 3) of uint8.
        alpha: the person's matte (H, W) of uint8.
        size: pixels of the square's sides, at most those of the picture.
        rng: decides where.
    """
    rows = np.flatnonzero(alpha.max(axis=1) > 127)
    top, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, 0)
    columns = np.flatnonzero(alpha[top : top + (last - top) // 4 + 1].max(axis=0) > 127)
    middle = float(np.median(columns)) if len(columns) else alpha.shape[1] / 2
    left, up = middle - rng.uniform(0.05, 0.95) * size, top - rng.uniform(-0.15, 0.35) * size
    left, up = (int(min(max(at, 0), of - size)) for at, of in zip((left, up), alpha.shape[1::-1], strict=True))
    return colours[up : up + size, left : left + size], alpha[up : up + size, left : left + size]


def _touched(alpha: np.ndarray) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
    """Tell whether the person is cut off at the (top, left) and at the (bottom, right)."""
    top, bottom, left, right = (
        bool(side.mean() > _TOUCHES * 255) for side in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])
    )
    return (top, left), (bottom, right)


def _place(length: float, size: int, first: bool, last: bool, rng: np.random.Generator, beyond: float = 0.0) -> float:
    """Return where a picture of this length begins in the square; a share of it may lie beyond, its middle does not."""
    slack, out = size - length, beyond * length
    middle_first, middle_last = (share * size - length / 2 for share in (0.1, 0.9))
    least = slack if last else max(min(slack, 0) - out, min(middle_first, 0))
    most = 0 if first else min(max(slack, 0) + out, max(middle_last, slack))
    return rng.uniform(min(least, most), most)  # rounding may leave a hair between sides that both are touched


def _turned(size: int, rng: np.random.Generator) -> np.ndarray:
    angle = np.deg2rad(rng.uniform(-MOST_TURNED, MOST_TURNED)) if rng.random() < 0.5 else 0.0
    cosine, sine, middle = np.cos(angle), np.sin(angle), size / 2
    about = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    there, back = np.eye(3), np.eye(3)
    there[:2, 2], back[:2, 2] = -middle, middle
    return back @ about @ there


def _mirrored(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]]) if rng.random() < 0.5 else np.eye(3)
