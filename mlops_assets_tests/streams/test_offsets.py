"""Where reading goes on, what is lost, and that nothing goes back."""

import pytest

from mlops_assets.errors import DataError, LostOffsets
from mlops_assets.streams.offsets import Loss, begin, content_version, lag, require_forward


@pytest.mark.parametrize(
    ("following", "first", "expected"), [(None, 0, 0), (None, 40, 40), (7, 0, 7), (7, 7, 7), (0, 0, 0)]
)
def test_reading_goes_on_behind_what_the_table_holds(following, first, expected):
    assert begin("orders", 0, following, first) == expected


@pytest.mark.parametrize("accepted", [[], [Loss(0, 8, 20)], [Loss(0, 7, 19)], [Loss(1, 7, 20)]])
def test_lost_offsets_are_an_error_with_the_range_and_what_to_do(accepted):
    with pytest.raises(LostOffsets) as error:
        begin("orders", 0, 7, 20, accepted)
    said = str(error.value)
    assert "Topic 'orders', partition 0: the records with offsets 7 to 19 (13 of them)" in said
    assert "accepted_losses: [{partition: 0, first: 7, before: 20" in said


def test_a_loss_of_a_stream_that_holds_rows_from_offset_zero_is_found_too():
    with pytest.raises(LostOffsets, match="offsets 0 to 4"):
        begin("orders", 0, 0, 5)


@pytest.mark.parametrize("accepted", [Loss(0, 7, 20), Loss(0, 0, 100)])
def test_an_accepted_loss_lets_reading_go_on_with_the_first_record_there_is(accepted):
    assert begin("orders", 0, 7, 20, [accepted]) == 20


def test_offsets_never_go_back():
    require_forward({0: 5, 1: None}, {0: 5, 1: 0})
    with pytest.raises(DataError, match="partition 0 from 5 to 4"):
        require_forward({0: 5, 1: None}, {0: 4, 1: 3})


def test_lag_is_what_the_topic_has_beyond_the_table():
    assert lag({0: 5, 1: 7}, {0: 9, 1: 7, 2: 3}) == {0: 4, 1: 0, 2: 3}


def test_the_version_says_how_far_a_topic_is_held():
    assert content_version("a", {0: 1, 1: 2}) == content_version("a", {1: 2, 0: 1})
    assert (
        len({content_version("a", {0: 1}), content_version("a", {0: 2}), content_version("b", {0: 1})}) == 3
    )
