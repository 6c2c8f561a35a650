"""Filters over the photos of an index: equal to a plain loop, and what is no filter is refused in one line."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsbir.base.errors import InputError
from zsbir.data.items import KINDS, Filter, Range, checked_kinds, common_kinds

NAMES = ["bear", "bee", "", "Bär"]
FOLDERS = ["", "a", "a/b", "ab", "a/b/c"]
VALUES = {
    "colour": st.sampled_from(["red", "green", "", None]),
    "price": st.sampled_from([0.5, -3.25, 10.0, None]),
    "stock": st.sampled_from([0, 1, -7, 2**62, None]),
    "sold": st.sampled_from([True, False, None]),
}
TYPES = {"colour": "string", "price": "float", "stock": "int", "sold": "bool"}
PHOTOS = st.lists(
    st.fixed_dictionaries({"folder": st.sampled_from(FOLDERS), "class_name": st.sampled_from(NAMES), **VALUES}), max_size=12
)
NUMBERS = st.sampled_from([0, 1, -7, 0.5, 10, -3.25, 2**62, 9.99])
RANGES = st.dictionaries(st.sampled_from(["min", "max"]), NUMBERS, min_size=1)
CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "colour": st.one_of(st.sampled_from(["red", "blue", ""]), st.lists(st.sampled_from(["red", "green"]))),
        "price": st.one_of(NUMBERS, st.lists(NUMBERS), RANGES),
        "stock": st.one_of(NUMBERS, st.lists(NUMBERS), RANGES),
        "sold": st.one_of(st.booleans(), st.lists(st.booleans())),
    },
)
FILTERS = st.fixed_dictionaries(
    {}, optional={"classes": st.lists(st.sampled_from(NAMES)), "folder": st.sampled_from(FOLDERS), "columns": CONDITIONS}
)


def meets(photo, chosen):
    """Whether a photo meets a filter in its JSON form, as its description says."""
    if chosen.get("classes") and photo["class_name"] not in chosen["classes"]:
        return False
    if chosen.get("folder") and not f"{photo['folder']}/".startswith(f"{chosen['folder']}/"):
        return False
    for name, wanted in chosen.get("columns", {}).items():
        value = photo[name]
        if value is None:
            return False
        if isinstance(wanted, dict):
            if not wanted.get("min", -math.inf) <= value <= wanted.get("max", math.inf):
                return False
        elif value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def columns_of(photos):
    paths = [f"{photo['folder']}/{number}.jpg".lstrip("/") for number, photo in enumerate(photos)]
    return (
        pa.chunked_array([paths], pa.string()),
        pa.chunked_array([[photo["class_name"] for photo in photos]], pa.string()),
        {name: pa.chunked_array([[photo[name] for photo in photos]], KINDS[kind]) for name, kind in TYPES.items()},
    )


@given(PHOTOS, FILTERS)
def test_a_filter_chooses_what_a_loop_over_all_photos_chooses(photos, chosen):
    found = Filter.from_json(json.loads(json.dumps(chosen))).mask(*columns_of(photos))
    assert found.dtype == np.bool_
    assert found.tolist() == [meets(photo, chosen) for photo in photos]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (["price<10"], {"columns": {"price": {"max": math.nextafter(10, 0)}}}),
        (["price<=10", "price>=0.5"], {"columns": {"price": {"min": 0.5, "max": 10}}}),
        (["stock>1"], {"columns": {"stock": {"min": 2}}}),
        (["stock<1"], {"columns": {"stock": {"max": 0}}}),
        (["colour=red"], {"columns": {"colour": "red"}}),
        (["colour=red, green"], {"columns": {"colour": ["red", "green"]}}),
        (["sold=true", "stock=1"], {"columns": {"sold": True, "stock": 1}}),
    ],
)
def test_conditions_of_a_command_line_are_those_of_a_request(where, wanted):
    photos = [
        {"folder": "a", "class_name": "bear", "colour": colour, "price": price, "stock": stock, "sold": sold}
        for colour in ("red", "green", None)
        for price in (0.5, 10.0, 11.0, None)
        for stock in (0, 1, 2)
        for sold in (True, None)
    ]
    assert Filter.from_flags(where=where).mask(*columns_of(photos)).tolist() == [meets(photo, wanted) for photo in photos]


def test_a_text_that_looks_like_a_number_is_quoted():
    assert Filter.from_flags(where=['code="007"']).columns == {"code": "007"}
    assert Filter.from_flags(where=["code=007"]).columns == {"code": 7}
    assert Filter.from_flags(where=["price>=2", "price<=3"]).columns == {"price": Range(2, 3)}
    assert Filter.from_flags(["bear"], "/a/b/") == Filter(("bear",), "a/b")
    assert not Filter.from_flags()


@pytest.mark.parametrize("where", ["price", "price<", "<3", "price<red", "price!3", "", "price>nan", "price>=inf", "sold<true"])
def test_what_is_no_condition_is_refused(where):
    with pytest.raises(InputError, match="--where"):
        Filter.from_flags(where=[where])
    with pytest.raises(InputError, match="a condition already"):
        Filter.from_flags(where=["a=1", "a=2"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "a filter is an object"),
        ([], "a filter is an object"),
        ({"class": ["bear"]}, "did you mean 'classes'"),
        ({"classes": "bear"}, "classes must be a list"),
        ({"classes": [3]}, "classes must hold texts"),
        ({"classes": ["x"] * 1001}, "at most 1000"),
        ({"classes": ["\ud800"]}, "classes must hold texts"),
        ({"folder": "x" * 20_000}, "folder must hold texts of at most"),
        ({"folder": 3}, "folder must hold texts"),
        ({"columns": []}, "columns must be an object"),
        ({"columns": {str(number): 1 for number in range(65)}}, "at most 64"),
        ({"columns": {"price": {"from": 1}}}, "must have min, max or both"),
        ({"columns": {"price": {}}}, "must have min, max or both"),
        ({"columns": {"price": {"min": "1"}}}, "one of numbers"),
        ({"columns": {"price": {"min": True}}}, "one of numbers"),
        ({"columns": {"price": {"min": math.nan}}}, "texts, numbers, true or false"),
        ({"columns": {"price": 10**400}}, "texts, numbers, true or false"),
        ({"columns": {"price": None}}, "texts, numbers, true or false"),
        ({"columns": {"price": [[1]]}}, "texts, numbers, true or false"),
        ({"columns": {"\x1b[2J": None}}, "texts, numbers, true or false"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_filter_is_refused_in_one_clean_line(value, reason):
    with pytest.raises(InputError, match=reason) as error:
        Filter.from_json(value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"prise": 1}, "unknown column 'prise'; did you mean 'price'"),
        ({"colour": 1}, "holds strings, and is compared with 1"),
        ({"stock": "1"}, "holds ints, and is compared with '1'"),
        ({"stock": True}, "holds ints, and is compared with True"),
        ({"sold": 1}, "holds bools, and is compared with 1"),
        ({"colour": {"min": 1}}, "holds strings, which have no range"),
        ({"sold": {"min": 0}}, "holds bools, which have no range"),
    ],
)
def test_a_condition_of_another_type_than_its_column_is_refused(columns, reason):
    with pytest.raises(InputError, match=reason):
        Filter.from_json({"columns": columns}).mask(*columns_of([]))


def test_what_a_manifest_says_about_columns_is_checked():
    assert checked_kinds({"price": "float"}, "it") == {"price": "float"}
    for evil in ([], {"price": "double"}, {"path": "string"}, {"a.b": "int"}, {"": "int"}, {"\x1b": "int"}, {"price": ["float"]}):
        with pytest.raises(InputError, match="it: "):
            checked_kinds(evil, "it")
    with pytest.raises(InputError, match="'price' is int in one segment and float in another"):
        common_kinds([{"price": "int"}, {"price": "float"}], "it")
