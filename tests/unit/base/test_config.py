import pytest
from pydantic import Field

from zsbir.base.config import Config, digest_of, read_yaml, unknown_name
from zsbir.base.errors import InputError


class Boat(Config):
    """A configuration like any other."""

    hull: str
    length_m: float = Field(4.0, gt=0)
    sails: int = 1
    crew: tuple[str, ...] = ()


def message(call, *arguments, **words):
    with pytest.raises(InputError) as caught:
        call(*arguments, **words)
    text = str(caught.value)
    assert "\n" not in text, "one line"
    return text


def test_an_unknown_field_is_an_error_with_the_nearest_name():
    assert message(Boat.of, {"hull": "oak", "lenght_m": 3}) == "configuration: unknown field 'lenght_m'; did you mean 'length_m'?"


def test_without_a_near_name_all_of_them_are_listed():
    assert message(Boat.of, {"hull": "oak", "zzz": 3}).endswith("unknown field 'zzz'; known: crew, hull, length_m, sails")


def test_a_missing_field_a_wrong_type_and_a_value_out_of_range_are_named_with_the_value():
    assert message(Boat.of, {}) == "configuration: field 'hull' is required"
    assert message(Boat.of, {"hull": "oak", "sails": "two"}, where="boat.yaml").startswith("boat.yaml: field 'sails': ")
    assert message(Boat.of, {"hull": "oak", "sails": "two"}).endswith("got 'two'")
    assert "greater than 0, got -1" in message(Boat.of, {"hull": "oak", "length_m": -1})


def test_all_bad_fields_stand_in_one_line():
    text = message(Boat.of, {"length_m": -1, "sial": 2})
    assert all(part in text for part in ("'hull' is required", "'length_m'", "did you mean 'sails'?"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan"])
def test_numbers_are_finite(value):
    assert "finite" in message(Boat.of, {"hull": "oak", "length_m": value})


def test_a_configuration_is_frozen_and_replace_validates_anew():
    boat = Boat(hull="oak")
    with pytest.raises(ValueError, match="frozen"):
        boat.sails = 2
    assert boat.replace(sails=2) == Boat(hull="oak", sails=2)
    assert boat.sails == 1
    assert "did you mean 'sails'" in message(boat.replace, sail=2)
    assert "length_m" in message(boat.replace, length_m=0)


def test_the_fingerprint_depends_on_values_and_not_on_their_order_or_form():
    boat = Boat(hull="oak", length_m=5, crew=("ann", "bob"))
    assert boat.fingerprint() == Boat.of({"crew": ["ann", "bob"], "length_m": "5.0", "hull": "oak"}).fingerprint()
    assert boat.fingerprint() != boat.replace(crew=("bob", "ann")).fingerprint()
    assert len(boat.fingerprint()) == 64
    assert digest_of({"b": 1, "a": [True, None]}) == digest_of({"a": [True, None], "b": 1})


def test_suggestions_are_the_same_for_any_order_of_the_known_names():
    assert unknown_name("colour", "rd", ["red", "green"]) == unknown_name("colour", "rd", ["green", "red"])
    assert unknown_name("colour", "rd", ["red", "green"]) == "unknown colour 'rd'; did you mean 'red'?"


def test_yaml_gives_the_mapping_in_the_file(tmp_path):
    file = tmp_path / "boat.yaml"
    file.write_text("hull: oak\nlength_m: 5\ncrew: [ann, bob]\n")
    assert Boat.of(read_yaml(file)) == Boat(hull="oak", length_m=5, crew=("ann", "bob"))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"- a\n- b\n", "must be a YAML mapping"),
        (b"", "must be a YAML mapping"),
        (b"hull: [oak\nsails: 2\n", "cannot read the configuration"),
        (b"\xff\xfe\x00\x01", "must be a YAML mapping"),
        (b"a: \xff", "cannot read the configuration"),
        (b"hull: !!python/object/apply:os.system ['true']\n", "cannot read the configuration"),
    ],
)
def test_bad_yaml_is_one_line_that_names_the_file(tmp_path, content, what):
    file = tmp_path / "boat.yaml"
    file.write_bytes(content)
    text = message(read_yaml, file)
    assert what in text
    assert str(file) in text


def test_a_missing_yaml_file_is_an_input_error(tmp_path):
    assert "No such file" in message(read_yaml, tmp_path / "none.yaml")
    assert "Is a directory" in message(read_yaml, tmp_path)


def test_a_yaml_file_that_repeats_its_parts_into_billions_is_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="holds more than 1000000 values"):
        read_yaml(tmp_path / "bomb.yaml")
