"""Counts and shares as people read them."""

from __future__ import annotations

_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def short_count(value: float) -> str:
    """Write a count with four digits and a unit.

    Example:
        >>> short_count(6158123), short_count(18.117e9), short_count(84)
        ('6.158 M', '18.12 G', '84')
    """
    for step, unit in _STEPS:
        if abs(value) >= 0.99995 * step:
            scaled = value / step
            return f"{scaled:.{max(0, 3 - _digits_before(scaled) + 1)}f} {unit}"
    return f"{value:.0f}"


def number_of(value: float) -> str:
    """Write a positive number with three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def bar(share: float, width: int = 12) -> str:
    """Draw a share between 0 and 1 as a bar of `width` characters, an eighth of one at its finest.

    Example:
        >>> bar(0.5, 4)
        '██  '
    """
    eighths = max(1 if share > 0 else 0, round(min(max(share, 0.0), 1.0) * width * 8))
    full, rest = divmod(eighths, 8)
    return ("█" * full + " ▏▎▍▌▋▊▉"[rest] * (rest > 0)).ljust(width)


def _digits_before(value: float) -> int:
    return len(str(int(abs(value))))
