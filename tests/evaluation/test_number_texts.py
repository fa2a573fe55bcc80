"""Numbers as people read them."""

from detkit.evaluation.number_texts import points, value_text


def test_points_have_one_decimal_and_no_minus_zero():
    assert [points(value) for value in (0.12345, 1.0, 0.0, -0.0001, -0.02, None)] == [
        "12.3",
        "100.0",
        "0.0",
        "0.0",
        "-2.0",
        "n/a",
    ]


def test_values_have_three_digits_where_they_are_not_whole():
    assert [value_text(value) for value in (0.00123456, 1e-6, 2.0, 65536, "null")] == [
        "0.00123",
        "1e-06",
        "2",
        "65536",
        "null",
    ]
