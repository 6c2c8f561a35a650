"""What a YAML file of a training may hold by mistake, before a recipe or a loss is known: each is one line."""

from __future__ import annotations

import pytest

from tuning import __main__ as tuning
from zsbir import train
from zsbir.base.errors import InputError


@pytest.mark.parametrize("verb", [train, tuning])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("recipe: [toy]", r"unknown recipe \"\['toy'\]\""),
        ("recipe: {toy: 1}", "unknown recipe"),
        ("recipe: 3", "unknown recipe '3'"),
        ("1: 2", "unknown field '1'"),
        ("losses: supcon", "field 'losses': input should be a valid tuple"),
        ("losses: {supcon: 1}", "field 'losses': input should be a valid tuple"),
        ("losses: [[supcon]]", "input should be a valid string"),
    ],
)
def test_what_is_no_field_no_recipe_and_no_loss_is_one_line(verb, text, line, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=line) as error:
        verb._parse(["--config", str(tmp_path / "mine.yaml"), "--dataset", "nowhere"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("verb", [train, tuning])
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--supcon-temperature", "0.2"], "the option '--supcon-temperature' is there with --losses supcon: give that as well"),
        (["--weight-triplet=2"], "the option '--weight-triplet' is there with --losses triplet"),
        (["--losses", "supcon", "--supcon-temperatur", "1"], "unknown option '--supcon-temperatur'; did you mean '--supcon-temp"),
    ],
)
def test_the_flag_of_a_loss_that_is_not_named_says_how_to_name_it(verb, words, line):
    with pytest.raises(InputError, match=line):
        verb._parse(["toy", "--dataset", "nowhere", *words])
