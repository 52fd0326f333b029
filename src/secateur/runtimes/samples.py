"""What INT8 is calibrated on, and how an ONNX file runs on it."""

from collections.abc import Callable, Sequence

import numpy as np

Samples = Sequence[Sequence[np.ndarray]]  # one array for each input, for each sample
Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
Open = Callable[[bytes], Run]  # of an ONNX file
