import pytest

from zsbir.base.errors import InputError
from zsbir.data.names import fold, match_names


def test_names_match_exactly_first_and_then_without_regard_to_spelling():
    assert fold(" Alarm-clock ") == "alarm_clock"
    assert match_names(["alarm_clock", "Dog"], ["alarm clock", "dog", "cat"], what="class") == ["alarm clock", "dog"]
    assert match_names(["t-shirt"], ["t-shirt", "t_shirt"], what="class") == ["t-shirt"]
    with pytest.raises(InputError, match="did you mean 'dolphin'"):
        match_names(["dolfin"], ["dolphin", "dog"], what="unseen class")
