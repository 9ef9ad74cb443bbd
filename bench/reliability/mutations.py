"""Records that nobody wants to receive, made from ones as they come: pure functions of a record and a generator."""

import codecs
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Record = dict[str, Any]
Mutation = Callable[[Record, random.Random], bytes]

KINDS = ("view", "click", "cart", "purchase", "return")
# Users of the records that no mutation has touched.
UNTOUCHED = "untouched-"
# What ends a line for Spark; a pair counts once.
_LINE_END = re.compile(rb"\r\n|\n|\r")
# A line of nothing else is no record.
_BLANKS = b" \t\n\x0b\f\r"

NESTED = 2_000
# Beyond what Spark's parser of JSON takes for a text, once in a while.
LONGEST, ONE_IN = 20_500_000, 20_000

TIMES: tuple[Any, ...] = (
    "", " ", "now", "today", "yesterday", "epoch", "infinity", "-infinity", "0", "-0", "-1", "1e300", "-1e300", "NaN",
    "9" * 400, "253402300800", "-62135596801", 9_223_372_036_854_775_807, -9_223_372_036_854_775_808, 1e18, 99e9, 1e11,
    "0000-00-00", "0000-01-01", "-2024-05-01", "+2024-05-01", "99999-12-31", "294247-01-10T04:00:54.775807Z",
    "2024-02-30", "2023-02-29", "2024-13-01", "2024-05-01T24:00:00", "2024-05-01T23:59:60Z", "2024-05-01T12:30",
    "2024-05-01T12:30:15.123456789Z", "2024-05-01T12:30:15,5", "2024-05-01T12:30:15+25:00", "2024-05-01T12:30:15 PST",
    "2024-05-01T12:30:15 Europe/Berlin", "2023-10-29T02:30:00 Europe/Berlin", "2024-05-01T12:30:15[Mars/Olympus]",
    "12:30:00", "T12", "20240501", "2024/05/01", "01.05.2024", "May 1, 2024", "٢٠٢٤-٠٥-٠١", "2024-05-01\x00",
    "１７１４", True, False, [], {}, [2024, 5, 1], {"seconds": 1_714_564_800}, None, 1_714_564_800.123456,
    1_714_564_800_000,
)  # fmt: skip
INJECTIONS = (
    "'; DROP TABLE interaction_log; --", "' OR '1'='1", '" OR ""="', "`user_id`", "${spark.sql.warehouse.dir}",
    "{{7*7}}", "$(reboot)", "`reboot`", "| reboot", "../../../../etc/passwd", "..\\..\\windows", "file:///etc/passwd",
    "<script>alert(1)</script>", "%00", "%n%n%s", "\\", "\\u0000", "a/b=c", "__HIVE_DEFAULT_PARTITION__", "_SUCCESS",
    "null", "NULL", "None", "NaN", "true", "\u202eabc", "\ufeffabc", "\u200b", "\u00a0", "e\u0301", "\ufffd",
    "${jndi:ldap://localhost/a}", "=cmd|' /C calc'!A0", "__proto__", "constructor", "\x1b[2J", "\x7f",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    "NaN", "nan", "Infinity", "-Infinity", "1e309", "-1e309", 1e308, 5e-324, "0x1p3", "1d", "1_0", "1,5", "٣", "", " ",
    f"0x{1:02000}p3", True, [], {}, [1], {"value": 1}, None, -0.0, 10**30, "1" * 2_000, "--1", "many",
)  # fmt: skip


def real_looking(number: int, draw: random.Random) -> Record:
    """An event as the clients of a shop send it; the number makes its id unique."""
    return {
        "user_id": f"u{int(draw.paretovariate(0.5)) % 20_000}",
        "item_id": f"i{int(draw.paretovariate(0.7)) % 5_000}",
        "event_type": draw.choice(KINDS),
        "value": round(draw.random() * 10, 2),
        "event_time": 1_714_564_800 + number,
        "event_id": f"e{number}",
    }


def untouched(record: Record, draw: random.Random) -> bytes:
    """As it came, of a user whom no mutation makes."""
    return _line({**record, "user_id": UNTOUCHED + record["user_id"]})


def truncated(record: Record, draw: random.Random) -> bytes:
    """Cut off anywhere, inside a character too."""
    line = _line({**record, "item_id": f"é{record['item_id']}🛒"})
    return line[: draw.randrange(len(line))]


def wrong_type(record: Record, draw: random.Random) -> bytes:
    """One field of another type."""
    field = draw.choice(list(record))
    return _line(
        {**record, field: draw.choice([None, True, 0, -1, 1.5, 10**40, "", " ", [], [1, [2]], {}, {"a": "b"}])}
    )


def no_object(record: Record, draw: random.Random) -> bytes:
    """JSON, or nearly, but no object."""
    line = _line(record).decode()
    kinds = ["null", "17", '"text"', "[]", "{}", "{", "}", "[", ",", '"', "NaN", f"[{line}]", f'"{line}"', f"({line})"]
    return draw.choice([*kinds, f"// {line}", f"/* a */{line}", line.replace('"', "'"), line[:-1] + ",}"]).encode()


def nested(record: Record, draw: random.Random) -> bytes:
    """Thousands of brackets deep, in a field that is read or in one that is not."""
    begin, end = draw.choice([("[", "]"), ('{"a":', "}")])
    deep = begin * NESTED + "1" + end * draw.choice([NESTED, NESTED, NESTED - 1, 0])
    return _with_text(record, draw.choice(["user_id", "value", "extra"]), deep)


def huge_number(record: Record, draw: random.Random) -> bytes:
    """Numbers of a thousand digits or a million in the exponent, bare."""
    digits = "".join(draw.choices("0123456789", k=draw.choice([20, 40, 999, 1_001, 5_000])))
    number = draw.choice(
        [f"9{digits}", f"-9{digits}", f"0.{digits}", f"1e{digits[:7]}", f"1e-{digits[:7]}", f"0{digits}"]
    )
    return _with_text(record, draw.choice(list(record)), number)


def controls(record: Record, draw: random.Random) -> bytes:
    """NUL and other control characters: escaped, or bare, inside a text or around the object."""
    control = draw.choice(["\x00", "\x01", "\x08", "\x0b", "\x1b", "\x1c", "\x7f", "\x85", "\u2028", "\u2029"])
    field = draw.choice(["user_id", "item_id", "event_type", "event_time", "event_id"])
    changed = _line({**record, field: f"{record[field]}{control}{draw.choice(['', 'x'])}"})
    if draw.random() < 0.5:
        return changed
    bare = control.encode()
    at = draw.choice([0, len(changed), draw.randrange(len(changed))])
    return changed[:at] + bare * draw.choice([1, 3]) + changed[at:]


def surrogates(record: Record, draw: random.Random) -> bytes:
    """Halves of a pair of UTF-16: escaped, or as the bytes that they would have in UTF-8."""
    half = draw.choice(["\ud800", "\udfff", "\udc00\ud800", "\ud83d", "\ud83d\ude00"])
    changed = {**record, draw.choice(["user_id", "item_id", "event_type", "event_id"]): f"x{half}y"}
    if draw.random() < 0.5:
        return json.dumps(changed).encode()
    return json.dumps(changed, ensure_ascii=False).encode("utf-8", "surrogatepass")


def encodings(record: Record, draw: random.Random) -> bytes:
    """Another encoding, or a few bytes of one in the middle."""
    text = _line({**record, "user_id": f"Jürgen-{record['user_id']}", "item_id": f"Ċ茶{record['item_id']}"}).decode()
    encoding = draw.choice(["latin-1", "utf-16", "utf-16-le", "utf-32", "cp1252", "shift_jis", "gb18030", "utf-7"])
    if draw.random() < 0.5:
        return text.encode(encoding, "replace")
    line, strange = text.encode(), bytes(draw.choices(range(128, 256), k=draw.randrange(1, 6)))
    at = draw.randrange(len(line))
    return line[:at] + draw.choice([strange, b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82"]) + line[at:]


def duplicate_keys(record: Record, draw: random.Random) -> bytes:
    """The same key twice, or in another case."""
    field = draw.choice(list(record))
    key = draw.choice([field, field, field.upper(), f"{field} ", field.replace("_", "\\u005f")])
    again = f', "{key}": {json.dumps(draw.choice(["again", None, 1, [], record[field]]))}}}'
    return _line(record)[:-1] + again.encode()


def giant(record: Record, draw: random.Random) -> bytes:
    """A text of thousands of characters, once in a while of millions, in any field or as the name of one."""
    length = LONGEST if draw.randrange(ONE_IN) == 0 else draw.choice([1_000, 1_025, 10_000, 50_001])
    part = draw.choice(["x", "é", "\U0001f6d2", " ", '"', "\\", "9", "0.", "-", "2024-"])
    text = (part * length)[:length] + draw.choice(["", "x", " "])
    if draw.random() < 0.2:
        return _line({**record, text: 1})
    return _line({**record, draw.choice([*record, "extra"]): text})


def injections(record: Record, draw: random.Random) -> bytes:
    """Text that would do harm in a statement, a path, a template or a terminal."""
    text = draw.choice(INJECTIONS)
    fields = draw.choice([["user_id"], ["item_id"], ["event_type"], ["event_id"], ["user_id", "item_id", "event_id"]])
    return _line({**record, **dict.fromkeys(fields, text), draw.choice(["extra", text]): text})


def times(record: Record, draw: random.Random) -> bytes:
    """Times of every shape, also of shapes that are none."""
    time = draw.choice(TIMES)
    if draw.random() < 0.3:
        time = f"{draw.choice(['', ' ', chr(9)])}{time}{draw.choice(['', 'Z', '+02:00', ' ', 'd'])}"
    return _line({**record, "event_time": time})


def values(record: Record, draw: random.Random) -> bytes:
    """Values that are no number, none that is finite, or out of range."""
    return _line({**record, "event_type": draw.choice(["watch", "rate"]), "value": draw.choice(VALUES)})


def several(record: Record, draw: random.Random) -> bytes:
    """Several objects in a line, or an object and something else."""
    line = _line(record)
    return draw.choice([b"", b" ", b", ", b",", b";", b"\t", b"][", b"\x1e"]).join(
        [line, *draw.choices([line, b"{}", b"null", b"]", b"[", b"x", b"{"], k=draw.randrange(1, 4))]
    )


def marked(record: Record, draw: random.Random) -> bytes:
    """A byte order mark before the object, inside it or behind it."""
    line = _line(record)
    mark = draw.choice([codecs.BOM_UTF8, codecs.BOM_UTF8 * 2, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE])
    at = draw.choice([0, 0, 1, len(line)])
    return line[:at] + mark + line[at:]


def line_ends(record: Record, draw: random.Random) -> bytes:
    """Ends of lines of every kind behind the object or inside it, and blank lines."""
    line = _line(record)
    end = draw.choice([b"\r", b"\r\r", b"\n\r", b"\r\n\r\n", b" \n\t", b"\n \x0b\f\n"])
    at = len(line) if draw.random() < 0.7 else draw.randrange(len(line))
    return line[:at] + end + line[at:]


def repeated(record: Record, draw: random.Random) -> bytes:
    """The id of an event that has come before, mostly."""
    number = int(record["event_id"][1:])
    return _line({**record, "event_id": f"r{number - number % 50}"})


MUTATIONS: Mapping[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        untouched, truncated, wrong_type, no_object, nested, huge_number, controls, surrogates, encodings,
        duplicate_keys, giant, injections, times, values, several, marked, line_ends, repeated,
    )
}  # fmt: skip


def hostile(numbers: range, seed: int) -> Iterator[tuple[str, bytes]]:
    """The mutation and the bytes of each number, without the end of the line; the same in every run with a seed."""
    names = list(MUTATIONS)
    for number in numbers:
        draw = random.Random(f"{seed} {number}")
        name = draw.choice(names)
        yield name, MUTATIONS[name](real_looking(number, draw), draw)


def clean(numbers: range, seed: int) -> Iterator[tuple[str, bytes]]:
    """As many records as `hostile` makes from the same numbers, none of them mutated."""
    for number in numbers:
        draw = random.Random(f"{seed} {number}")
        yield untouched.__name__, untouched(real_looking(number, draw), draw)


def count_records(content: bytes) -> tuple[int, int]:
    """Records of a file of JSON lines, and lines among its lines that are blank, which are none.

    A byte order mark at the very beginning belongs to the file, not to its first record.
    """
    lines = _LINE_END.split(content.removeprefix(codecs.BOM_UTF8))
    if not lines[-1]:  # behind the last end
        lines.pop()
    blank = sum(not line.strip(_BLANKS) for line in lines)
    return len(lines) - blank, blank


def _line(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode("utf-8")


def _with_text(record: Record, field: str, text: str) -> bytes:
    """The record with a field whose JSON is given."""
    rest = {name: value for name, value in record.items() if name != field}
    return f'{json.dumps(rest)[:-1]}, "{field}": {text}}}'.encode()
