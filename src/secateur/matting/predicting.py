"""Mattes of pictures, by any network in any runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from secateur.errors import RuntimeUnfitError, SecateurError
from secateur.matting.preprocessing import MEAN, STD, network_size, prepared
from secateur.matting.refining import resampled
from secateur.measurement.memory import is_exhausted
from secateur.runtimes.network import Network
from secateur.runtimes.registry import open_network
from secateur.runtimes.session import Options, Session


class Predictor:
    """A network that is open, with what stands before and behind it.

    Attributes:
        session: takes pictures (N, 3, h, w), and returns mattes (N, 1, h, w) as its last output.
        mean, std: of the input: `(x - mean) / std`, x in [0, 1].
        shape: (N, 3, h, w) of the input; None where any size goes.
        dtype: of the input.
    """

    def __init__(
        self,
        session: Session,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        shape: Sequence[int | None] = (None, 3, None, None),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if len(session.inputs) != 1 or len(shape) != 4 or shape[1] != 3:
            shown = "x".join("?" if size is None else str(size) for size in shape)
            raise RuntimeUnfitError(
                f"The network takes {', '.join(session.inputs)}, {shown}, where one batch of RGB pictures, ?x3x?x?, is "
                "wanted. Give a network for mattes."
            )
        self.session, self.mean, self.std = session, tuple(mean), tuple(std)
        self.batch, _, self.height, self.width = shape
        self.dtype = torch.empty(0, dtype=dtype).numpy().dtype

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Return the size in which the network sees a picture: as published, unless it takes one size alone."""
        published = network_size(height, width)
        return self.height or published[0], self.width or published[1]

    def prepare(self, colours: np.ndarray) -> np.ndarray:
        """Return a picture (H, W, 3) of uint8 as the network sees it: (3, h, w) of float32."""
        return prepared(colours, self.size_for(*colours.shape[:2]), self.mean, self.std)

    def run(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the mattes (h, w) of float32 in [0, 1] of prepared pictures, all of one size, in one call.

        Raises:
            RuntimeUnfitError: they do not fit into memory (says which batch may), the network fails, or what it gives
                is no matte.
        """
        if self.batch is None:
            return self._called(pictures)
        mattes: list[np.ndarray] = []
        for start in range(0, len(pictures), self.batch):
            part = list(pictures[start : start + self.batch])
            # A network of a fixed batch gets it full.
            mattes += self._called(part + part[-1:] * (self.batch - len(part)))[: len(part)]
        return mattes

    def __call__(self, colours: np.ndarray) -> np.ndarray:
        """Return the matte (H, W) of float32 in [0, 1] of a picture (H, W, 3) of uint8."""
        (matte,) = self.run([self.prepare(colours)])
        return resampled(colours, matte)

    def _called(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        given = pictures[0][None] if len(pictures) == 1 else np.stack(pictures)
        given = given.astype(self.dtype, copy=False)
        try:
            found = self.session(given)[-1]
        except SecateurError:
            raise
        except Exception as error:
            raise _failed(error, given) from error
        if found.size != given.size // 3:
            raise RuntimeUnfitError(
                f"The network gives {_shown(found)} for pictures of {_shown(given)}, where a matte of "
                f"{len(given)}x1x{given.shape[2]}x{given.shape[3]} is wanted. Give a network for mattes."
            )
        mattes = found.reshape(len(given), *given.shape[2:]).astype(np.float32, copy=False)
        if not np.isfinite(mattes).all():
            raise RuntimeUnfitError(
                "The network gives numbers that are none (NaN). Try --precision fp32, or its weights."
            )
        return list(mattes.clip(0, 1))


def open_predictor(
    network: Network,
    runtime: str = "torch",
    options: Options | None = None,
    fixed: tuple[int, int, int] | None = None,
) -> Predictor:
    """Open a network for mattes; its pre-processing is what it says itself, or else the published one.

    Args:
        network: a model, or an exported file.
        runtime: its name.
        options: precision, device and threads.
        fixed: batch, and height and width as the network sees them, where it is to see no others: some runtimes are
            faster then.

    Raises:
        RuntimeUnfitError: the runtime cannot run it so, or it is no network for mattes.
        RuntimeMissingError: the runtime is not installed.
        ExportError: the model does not go into the file that the runtime opens.

    Example:
        >>> from secateur.models import MODNet
        >>> network = Network.of_model("modnet", MODNet(), torch.zeros(1, 3, 64, 64))
        >>> open_predictor(network)(np.zeros((40, 30, 3), np.uint8)).shape
        (40, 30)
    """
    shape: tuple[int | None, ...] = (None, 3, None, None)
    if network.file is not None:
        shape = tuple(network.shapes[0])
    if fixed is not None and shape == (None, 3, None, None):
        shape = (fixed[0], 3, *fixed[1:])
    known = tuple(size for size in shape if size is not None)
    session = open_network(network, runtime, options, (known,) if len(known) == len(shape) else None)
    told = network.preprocessing or {}
    return Predictor(session, told.get("mean", MEAN), told.get("std", STD), shape, network.dtypes[0])


def _failed(error: Exception, given: np.ndarray) -> RuntimeUnfitError:
    count, size = len(given), f"{given.shape[2]}x{given.shape[3]}"
    if is_exhausted(error):
        smaller = f"Say --batch {count // 2}." if count > 1 else "Make it smaller, or free memory."
        pictures = f"{count} pictures of {size} at once do" if count > 1 else f"A picture of {size} does"
        return RuntimeUnfitError(f"{pictures} not fit into memory. {smaller}")
    return RuntimeUnfitError(f"The network does not run on pictures of {_shown(given)}: {' '.join(str(error).split())}")


def _shown(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape))
