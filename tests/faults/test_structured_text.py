"""JSON and TOML that would exhaust memory, time or the stack are refused before they are parsed."""

import tracemalloc

import pytest

from jaxsnn.files import structured_text
from jaxsnn.files.read_limits import limit_reading
from jaxsnn.files.structured_text import (
    MAX_DEPTH,
    MAX_DIGITS,
    parse_json,
)
from jaxsnn.files.toml_text import MAX_PARTS, MAX_TOML, parse_toml


def refused(parse, text, limit=4 * 10**6):
    """The reason for which a text is refused, with memory below a limit in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            parse(text)
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert len(message) < 200
    assert "\n" not in message
    return message


def dotted(parts, part="a", dot="."):
    return f"{dot.join([part] * parts)} = 1"


NESTED = {
    "arrays": ("x = ", "[", "", "]"),
    "inline tables": ("x = ", "{a = ", "1", "}"),
    "arrays after a string": ('y = "[[["\nx = ', "[", "", "]"),
    "arrays after a quote in a string": ('y = "\\"["\nx = ', "[", "", "]"),
}


@pytest.mark.parametrize("form", NESTED)
def test_toml_is_nested_up_to_a_limit(form):
    begin, opening, middle, closing = NESTED[form]

    def text(depth):
        return begin + opening * depth + middle + closing * depth

    value, depth = parse_toml(text(MAX_DEPTH))["x"], 0
    while isinstance(value, dict | list) and value:
        value, depth = (value["a"] if isinstance(value, dict) else value[0]), depth + 1
    assert depth >= MAX_DEPTH - 1
    for beyond in (MAX_DEPTH + 1, 20_000):
        assert str(MAX_DEPTH) in refused(parse_toml, text(beyond))


@pytest.mark.parametrize(
    "key",
    [{}, {"part": '"a"'}, {"part": "'a'"}, {"part": '""'}, {"dot": " . "}, {"part": "1"}],
    ids=str,
)
@pytest.mark.parametrize("form", ["{}", "[{}]", "[[{}]]", "x = {{{}}}", "# comment\n\n{}"])
def test_a_toml_key_has_up_to_a_number_of_parts(key, form):
    def text(parts):
        line = dotted(parts, **key)
        return form.format(line.removesuffix(" = 1") if form.startswith("[") else line)

    value = parse_toml(text(MAX_PARTS))
    value, depth = value.get("x", value), 0
    while isinstance(value, dict | list) and value:
        depth += isinstance(value, dict)
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    assert depth == MAX_PARTS
    assert str(MAX_PARTS) in refused(parse_toml, text(MAX_PARTS + 1))
    assert str(MAX_PARTS) in refused(parse_toml, text(50_000))


@pytest.mark.parametrize(
    "text",
    [
        f'x = "{"a." * 100}"',
        f"x = '{'a.' * 100}'",
        f'x = """{"a.b" * 100}\n[[[["{"[" * 100}"""',
        f"x = '''{'a.b' * 100}\n{'[' * 100}''\\'''",
        f"# {'a.' * 100} {'[' * 100}\nx = 1",
        f"x = [{'0.5, ' * 1000}1]",
        f'x = "\\"{"a." * 100}"',
        'x = """a\\"""" # "\ny = 1',
    ],
)
def test_strings_comments_and_numbers_are_no_keys(text):
    assert "x" in parse_toml(text)


def test_a_configuration_has_a_largest_size():
    line = "# a comment\n"
    content = line * (MAX_TOML // len(line))
    assert parse_toml(content) == {}
    assert str(MAX_TOML) in refused(parse_toml, content + line)


@pytest.mark.parametrize("text", ["[a.b.c.d.e.f.g.h]\n", "[[a]]\n", "{}.b.c.d.e.f.g.h = 1\n"])
def test_the_largest_configuration_needs_bounded_memory(text):
    count = MAX_TOML // (len(text) + 4)
    lines = [text.format(n) if "{" in text else text.replace("[a.", f"[{n}.") for n in range(count)]
    tracemalloc.start()
    parse_toml("".join(lines))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28


@pytest.mark.parametrize(
    "number",
    ["1" * (MAX_DIGITS + 2), "-" + "1" * 5000, "0x" + "f" * 10_000, "1_1" * 200, "1" + "0" * 10**5],
    ids=len,
)
def test_a_long_integer_of_toml_is_refused(number):
    assert str(MAX_DIGITS) in refused(parse_toml, f"x = {number}")


@pytest.mark.parametrize("text", ["x = 1e999", "x = -1e999", "x = [1.0, 1e400]"])
def test_a_float_of_toml_that_overflows_is_refused(text):
    assert "too large" in refused(parse_toml, text)


def test_toml_may_have_infinity_which_options_judge():
    assert parse_toml("x = inf\ny = -inf") == {"x": float("inf"), "y": -float("inf")}


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 20_000,
        '"""' + '\\"' * 20_000,
        "'" * 9999,
        '"' * 9999,
        "a" * 40_000,
        "." * 40_000,
        "=" * 1000,
        "x = 1\nx = 2",
        "[a]\n[a]",
        "[a]\nb = 1\n[a.b]",
        "a.b = 1\na.b = 2",
    ],
)
def test_broken_toml_is_refused_with_a_reason(text):
    assert refused(parse_toml, text, 10**7)


def test_json_is_nested_up_to_a_limit():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 100_000):
        for text in ("[" * depth + "]" * depth, "[" * depth, '{"a":' * depth):
            assert str(MAX_DEPTH) in refused(parse_json, text, 10**7)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('["' + "[" * 100 + '"]', ["[" * 100]),
        ('["\\"' + "[" * 100 + '"]', ['"' + "[" * 100]),
        ('["\\\\",[]]', ["\\", []]),
        ('{"a": "' + "," * 100 + '"}', {"a": "," * 100}),
        ('["' + "1" * 400 + '"]', ["1" * 400]),
        ("[" + "1" * MAX_DIGITS + "]", [int("1" * MAX_DIGITS)]),
        ("[-0.0, 1e-400, 2.5E3]", [-0.0, 0.0, 2500.0]),
        ('"\\ud800"', "\ud800"),
    ],
)
def test_json_within_the_limits_is_read(text, value):
    assert parse_json(text) == value


def test_a_string_that_ends_with_a_backslash_hides_no_brackets():
    assert str(MAX_DEPTH) in refused(parse_json, '["\\\\",' + "[" * 40 + "]" * 41)


@pytest.mark.parametrize(
    "text",
    [
        *("[NaN]", "[Infinity]", "[-Infinity]", "[1e400]", "[-1e400]", '{"a": 1, "a": 2}', "", '"'),
        *("[" + "1" * 400 + "]", "[-" + "1" * 5000 + "]", '["\\', "{", "[1,]", "\ufeff[]"),
    ],
)
def test_json_that_is_none_is_refused(text):
    assert refused(parse_json, text)


def test_a_key_that_occurs_twice_is_named():
    assert "'weights'" in refused(parse_json, '[{"a": {"weights": 1, "b": 2, "weights": 3}}]')


@pytest.mark.parametrize("item", ["[]", "{}", "1.5", '"ab"', '{"a":1}', "1000"])
def test_the_memory_of_json_is_estimated_before_it_is_parsed(item):
    """The estimate is at least what the parser takes, so that the limit holds."""
    count = 50_000
    text = "[" + ",".join([item] * count) + "]"
    tracemalloc.start()
    value = parse_json(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(value) == count
    with limit_reading(max_bytes=peak - len(text)):
        refused(parse_json, text, 2 * 10**7)
    with limit_reading(max_bytes=8 * peak):
        assert parse_json(text) == value


def test_no_other_parser_reads_json_or_toml():
    """`json.loads` and `tomllib` have none of these limits."""
    from pathlib import Path

    package = Path(structured_text.__file__).parents[1]
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(call in path.read_text() for call in ("json.load", "tomllib.load"))
        and "scripts" not in path.parts
    }
    # What this package itself has written: settings, and the document of its own process.
    assert users == {
        "files/structured_text.py",
        "files/toml_text.py",
        "files/read_process.py",
        "train/loop/checkpoint.py",
    }
