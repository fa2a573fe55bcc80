"""What the types of arguments take, and what they say of the rest."""

import argparse

import pytest

from detkit.arguments import names, numbers, part, score_or_percentile, share, whole_number, whole_numbers


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (names, " cat, dog,", ["cat", "dog"]),
        (whole_number(0), "0", 0),
        (whole_numbers, "0,2,11", [0, 2, 11]),
        (numbers(0), "0,0.5, 2e0", [0.0, 0.5, 2.0]),
        (share, "1", 1.0),
        (share, "0.25", 0.25),
        (part, "2/4", (1, 4)),
        (part, "1/1", (0, 1)),
        (score_or_percentile, "0.1", 0.1),
        (score_or_percentile, "p50", "p50"),
    ],
)
def test_takes(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (whole_number(1), "0", "0: write a whole number from 1 on"),
        (whole_number(0), "-1", "-1: write a whole number from 0 on"),
        (whole_number(0), "two", "two: write a whole number from 0 on"),
        (whole_numbers, "1,,2", "write a whole number from 0 on"),
        (numbers(0), "a", "a: write numbers from 0 on, such as 0.5,1,2"),
        (numbers(0), "1,,2", "1,,2: write numbers from 0 on"),
        (numbers(0), "1,-1", "1,-1: write numbers from 0 on"),
        (numbers(0), "nan", "nan: write numbers from 0 on"),
        (numbers(0), "1,inf", "1,inf: write numbers from 0 on"),
        (share, "1.5", "1.5: write a number between 0 and 1"),
        (share, "nan", "nan: write a number between 0 and 1"),
        (share, "half", "half: write a number between 0 and 1"),
        (part, "0/4", "0/4: write 2/4 for the second of four parts"),
        (part, "5/4", "5/4: write 2/4"),
        (part, "2", "2: write 2/4"),
        (score_or_percentile, "high", "high: write a score such as 0.1, or a percentile such as p50"),
    ],
)
def test_refuses(kind, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        kind(text)
