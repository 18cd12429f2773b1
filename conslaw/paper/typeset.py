"""Numbers as a reader would write them, in texts that hold them as a program prints them."""

import re

__all__ = ["typeset"]

POWER = re.compile(r"(?<![\w.])([−-]?)(\d+(?:\.\d+)?)e([+−-]?)0*(\d+)\b")
SUPERSCRIPTS = str.maketrans("−0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def typeset(text: str) -> str:
    """Write powers of ten, minus signs and percentages as in print.

    Args:
        text: Any text.

    Returns:
        The text with 3e-10 as 3 × 10⁻¹⁰, -1 as −1 and 5% as 5 %, the latter with a space that does not break.

    >>> typeset("1e-4, 2.5e+03 and -0.8")
    '10⁻⁴, 2.5 × 10³ and −0.8'
    """
    text = POWER.sub(_power, text)
    text = re.sub(r"(?<![\w.\-–)])-(?=\d)", "−", text)
    return re.sub(r"(?<=\d)[ \u202f]?%", "\u00a0%", text)


def _power(number: re.Match) -> str:
    sign, factor, below, exponent = number.groups()
    power = "10" + ("⁻" if below in ("-", "−") else "") + exponent.translate(SUPERSCRIPTS)
    return ("−" if sign else "") + (power if factor == "1" else f"{factor} × {power}")
