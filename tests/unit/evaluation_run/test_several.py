"""How long evaluations will take, as it is said before they start."""

import pytest

from zsbir.evaluation_run.several import duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "10 s"), (50, "50 s"), (51, "60 s"), (89, "90 s"), (91, "2 min"), (5399, "90 min"), (12600, "3.5 h")],
)
def test_a_duration_is_rounded_up_to_what_people_say(seconds, text):
    assert duration_text(seconds) == text
