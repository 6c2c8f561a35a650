"""What a search shows of an index that a stranger made."""

from zsbir.search import Hit, table


def test_a_table_of_hits_gives_no_orders_to_the_terminal_and_has_one_line_a_hit():
    hits = [Hit(1, 0.9, 0, "cup\x1b[2J", "a\n   2   1.000  gold  /etc/passwd"), Hit(2, 0.8, 1, "", "photo/\u202egpj.exe")]
    assert table(hits).split("\n") == [
        "rank   score  class                 path",
        r"   1   0.900  cup\x1b[2J            a\n   2   1.000  gold  /etc/passwd",
        r"   2   0.800  -                     photo/\u202egpj.exe",
    ]
