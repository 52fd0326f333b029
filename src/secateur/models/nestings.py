"""Other layouts of a model's keys, declared by the model: where a layout comes from, and how its keys read here."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Nesting:
    r"""The keys of a model as another project nests them.

    A model class lists those it knows in a class attribute `nestings`, and `load_checkpoint` tries them where the
    plain names fit less well.

    Example:
        >>> flat = Nesting("an older release", ((r"body\.(\d+)", r"features.\1"),))
        >>> flat.renamed("body.3.weight")
        'features.3.weight'
    """

    source: str  # whose layout it is, for the report
    rules: tuple[tuple[str, str], ...]  # a pattern of the key's beginning, what stands there here; the first that fits

    def renamed(self, key: str) -> str:
        """Return the key as the model names it; a key that no rule fits stays as it is."""
        for pattern, replacement in self.rules:
            found = re.match(pattern, key)
            if found:
                return found.expand(replacement) + key[found.end() :]
        return key
