"""Numbers and times read, and logarithms computed, as Java does it in Spark: events of all origins agree to the bit."""

import math
import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from recsys.contracts import MILLISECONDS_FROM

_SPACE = r"[ \t\n\x0b\f\r]*"
# Digits match in one way only: `\d+\.?\d*` would try every cut of a long row of them.
_DECIMAL = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
_TIME_NUMBER = re.compile(_SPACE + _DECIMAL + _SPACE, re.ASCII)
_NUMBER = re.compile(_DECIMAL + "[dDfF]?", re.ASCII)
_HEXADECIMAL = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+\.?|[0-9a-fA-F]*\.[0-9a-fA-F]+)[pP][+-]?\d+[dDfF]?", re.ASCII)
_NOT_FINITE = re.compile("[+-]?(NaN|Infinity)")
_NOT_FINITE_IN_ANY_CASE = re.compile(r"[+-]?inf(inity)?|nan", re.IGNORECASE)
# Begins with a date: a bare time of day is none.
_DATE = re.compile(_SPACE + r"[+-]?\d{4,}-\d", re.ASCII)
_ISO = re.compile(
    r"([+-]?)(\d{4,6})-(\d{1,2})(?:-(\d{1,2})(?:[ T](\d{1,2})(?::(\d{1,2})(?::(\d{1,2})(?:\.(\d*))?(.*))?)?)?)?",
    re.ASCII | re.DOTALL,
)
_OFFSET = re.compile(r"(?:UTC|GMT|UT)?([+-])(?:(\d\d?)(?::(\d\d?)(?::(\d\d))?)?|(\d\d)(\d\d)(\d\d)?)", re.ASCII)
_REGION = re.compile(r"[A-Za-z][A-Za-z0-9~/._+-]+", re.ASCII)
# Characters up to the blank, which Java trims, and the other control character of ASCII.
_CONTROLS = "".join(map(chr, range(33)))
_TRIMMED = _CONTROLS + "\x7f"
_MOST_OFFSET = 18 * 3_600
_DAYS_OF_400_YEARS = 146_097
_MICROS = 1_000_000


def parse_number(text: str) -> float | None:
    """Read a number as Spark casts text to double, NaN and infinity among them; None if it is none."""
    text = text.strip(_CONTROLS)
    if _NUMBER.fullmatch(text):
        return float(text.rstrip("dDfF"))
    if _NOT_FINITE.fullmatch(text) or _NOT_FINITE_IN_ANY_CASE.fullmatch(text):
        return float(text)
    if _HEXADECIMAL.fullmatch(text):
        mantissa, _, exponent = text.lower().partition("p")
        try:
            return float.fromhex(f"{mantissa}p{exponent.rstrip('df')}")
        except OverflowError:
            return -math.inf if text[0] == "-" else math.inf
    return None


def parse_time(text: str) -> int | None:
    """Read a time: ISO 8601 (UTC without a zone), or seconds or milliseconds since 1970.

    Returns:
        Microseconds since 1970; None where the text is none of these.
    """
    if _TIME_NUMBER.fullmatch(text):
        number = float(text)
        micros = number * (1e3 if abs(number) >= MILLISECONDS_FROM else 1e6)
        return _in_range(_half_up(micros)) if math.isfinite(micros) else None
    if _DATE.match(text):
        return _iso(text.strip(_TRIMMED))
    return None


def to_micros(time: datetime) -> int:
    """Microseconds since 1970 of a time with a zone."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def strict_log2(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithm to base 2 of normal positive numbers, the same bits as `log2` in Spark, on every machine.

    Spark divides Java's `StrictMath.log` by the logarithm of 2, and that is by definition the algorithm of fdlibm's
    `__ieee754_log` (Sun Microsystems 1993): x = 2^k (1 + f), log(1 + f) = f - s (f - R) with s = f / (2 + f) and R an
    even polynomial in s. NumPy's logarithm differs from it in the last bit of some numbers.
    """
    mantissas, exponents = np.frexp(values)
    # 1 + f from about sqrt(2) / 2 to about sqrt(2): where exactly, the upper 20 bits of the fraction decide.
    low = ((2 * mantissas).view(np.int64) >> 32) & 0xFFFFF
    above = (low + 0x95F64) & 0x100000 != 0
    k = exponents - 1.0 + above
    f = np.where(above, mantissas, 2 * mantissas) - 1.0
    high, rest = k * 6.93147180369123816490e-01, k * 1.90821492927058770002e-10
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    even = z * (
        6.666666666666735130e-01
        + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    polynomial, half = even + odd, 0.5 * f * f
    middle = ((low - 0x6147A) | (0x6B851 - low)) > 0
    inner = np.where(middle, s * (half + polynomial), s * (f - polynomial))
    main = np.where(middle, high - ((half - (inner + rest)) - f), high - ((inner - rest) - f))
    whole = np.where(middle, f - (half - inner), f - inner)
    tiny = f * f * (0.5 - 0.33333333333333333 * f)
    small = ((low + 2) & 0xFFFFF) < 3  # |f| up to 2^-20
    logarithms = np.where(k == 0, np.where(small, f - tiny, whole), np.where(small, high - ((tiny - rest) - f), main))
    logarithms = np.where(f == 0, high + rest, logarithms)
    divided: npt.NDArray[np.float64] = logarithms / 0.6931471805599453
    return divided


def _iso(text: str) -> int | None:
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    sign, *parts = match.groups()
    year = int(parts[0]) * (-1 if sign == "-" else 1)
    month, day, hour, minute, second = (int(part or default) for part, default in zip(parts[1:6], "11000", strict=True))
    # The calendar repeats every 400 years, and Python's knows only some of them.
    cycle, within = divmod(year - 2000, 400)
    if hour > 23 or minute > 59 or second > 59:
        return None
    try:
        local = datetime(2000 + within, month, day, hour, minute, second)
    except ValueError:
        return None
    offset = _offset(parts[7], local.replace(year=year) if 1 < year < 9999 else local)
    if offset is None:
        return None
    days = (local.date() - date(1970, 1, 1)).days + cycle * _DAYS_OF_400_YEARS
    seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset
    return _in_range(seconds * _MICROS + int(((parts[6] or "") + "000000")[:6]))


def _offset(zone: str | None, local: datetime) -> int | None:
    """Seconds by which a zone is ahead of UTC at a local time, 0 without a zone; None if there is no such zone."""
    zone = (zone or "").strip(_CONTROLS)
    if zone in ("", "Z", "UTC", "GMT", "UT"):
        return 0
    match = _OFFSET.fullmatch(zone)
    if match:
        sign, *parts = match.groups()
        hours, minutes, seconds = (int(one or other or 0) for one, other in zip(parts[:3], parts[3:], strict=True))
        offset = hours * 3_600 + minutes * 60 + seconds
        return None if minutes > 59 or seconds > 59 or offset > _MOST_OFFSET else offset * (-1 if sign == "-" else 1)
    if not _REGION.fullmatch(zone):
        return None
    try:
        ahead = ZoneInfo(zone).utcoffset(local)
    except (OSError, ValueError, LookupError):
        return None
    return None if ahead is None else ahead // timedelta(seconds=1)


def _half_up(number: float) -> int:
    """Rounded to a whole number, halves away from 0."""
    below = math.floor(abs(number))
    rounded = below + (abs(number) - below >= 0.5)
    return -rounded if number < 0 else rounded


def _in_range(micros: int) -> int | None:
    return micros if -(2**63) <= micros < 2**63 else None
