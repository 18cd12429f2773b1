"""Numbers and symbols as a reader would write them, in texts that hold them as a program prints them."""

import re

__all__ = ["typeset"]

SCIENTIFIC = re.compile(r"(?<![\w.])([−-]?)(\d+(?:\.\d+)?)e([+−-]?)0*(\d+)\b")
SUPERSCRIPTS = str.maketrans("−0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SUBSCRIPT = re.compile(r"(?<![A-Za-z]{4})(?<=[^\W\d_])_(max|GN|eff|[a-z\d](?:[,+][a-z\d])?)(?![A-Za-z\d_])")
EXPONENT = re.compile(r"\^(?:\(([^()]+)\)|([+−-]?\d+(?:\.\d+)?|[−-]?[a-zα-ω]))")


def typeset(text: str) -> str:
    """Write powers, indices, minus signs and percentages as in print.

    Args:
        text: Any text.

    Returns:
        The text, as Markdown and HTML show it, with 3e-10 as 3 × 10⁻¹⁰, -1 as −1, λ_max and m^0.5 with a subscript and
        a superscript, and 5% as 5 %, with a space that does not break.

    >>> typeset("1e-4, 2.5e+03 and -0.8")
    '10⁻⁴, 2.5 × 10³ and −0.8'
    >>> typeset("ηλ_max ~ m^-0.5")
    'ηλ<sub>max</sub> ~ m<sup>−0.5</sup>'
    """
    text = SCIENTIFIC.sub(_power, text)
    text = SUBSCRIPT.sub(r"<sub>\1</sub>", text)
    text = EXPONENT.sub(lambda match: f"<sup>{(match[1] or match[2]).replace('-', '−')}</sup>", text)
    text = re.sub(r"(?<![\w.\-–)])-(?=\d)", "−", text)
    return re.sub(r"(?<=\d)[ \u202f]?%", "\u00a0%", text)


def _power(number: re.Match) -> str:
    sign, factor, below, exponent = number.groups()
    power = "10" + ("⁻" if below in ("-", "−") else "") + exponent.translate(SUPERSCRIPTS)
    return ("−" if sign else "") + (power if factor == "1" else f"{factor} × {power}")
