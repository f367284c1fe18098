"""How large a batch should be: what the crowd's size says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rowlock.kernel.pacing import SMALLEST_SHARE, Crowd


def crowd(answered: int = 0, arrived: int = 0) -> Crowd:
    made = Crowd()
    made.answered(answered)
    for _ in range(arrived):
        made.arrived()
    return made


def test_a_single_caller_waits_for_nobody() -> None:
    alone = crowd(answered=1, arrived=1)

    assert not alone.is_on_its_way(ready=1)


def test_the_first_to_come_back_waits_for_the_others() -> None:
    assert crowd(answered=64, arrived=1).is_on_its_way(ready=1)
    assert not crowd(answered=64, arrived=32).is_on_its_way(ready=32)


def test_a_batch_takes_half_of_those_who_wait_and_of_those_who_will_be_back() -> None:
    assert crowd().share(ready=200) == 100
    assert crowd(answered=100).share(ready=100) == 100
    assert crowd(answered=100, arrived=100).share(ready=200) == 100


def test_a_crowd_that_stays_away_is_not_waited_for_again() -> None:
    gone = crowd(answered=64)
    gone.stays_away()

    assert not gone.is_on_its_way(ready=1)
    assert gone.share(ready=1) == SMALLEST_SHARE


@given(st.lists(st.integers(-50, 50), max_size=60), st.integers(1, 500))
def test_a_share_is_never_less_than_half_and_never_nothing(story: list[int], ready: int) -> None:
    somewhere = Crowd()
    for step in story:
        if step < 0:
            for _ in range(-step):
                somewhere.arrived()
        else:
            somewhere.answered(step)

    assert somewhere.share(ready) * 2 >= ready
    assert somewhere.share(ready) >= SMALLEST_SHARE
