"""Reading ahead: in order, bounded, errors where they belong, no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tracestore.load.reading_ahead import read_ahead


class Counted:
    """A source that counts how many of its elements were read."""

    def __init__(self, size: int, fails_at: int = -1) -> None:
        self.read = 0
        self.changed = threading.Condition()
        self._size, self._fails_at = size, fails_at

    def __iter__(self) -> Iterator[int]:
        for number in range(self._size):
            if number == self._fails_at:
                raise ValueError("the source is broken")
            with self.changed:
                self.read += 1
                self.changed.notify_all()
            yield number

    def await_read(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.read >= count, timeout=10)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tracestore-reader"]


@pytest.mark.parametrize("room", [0, 1, 3])
def test_everything_comes_in_order_and_the_thread_ends(room: int) -> None:
    assert list(read_ahead(Counted(20), room)) == list(range(20))
    assert readers() == []


@pytest.mark.parametrize("room", [1, 2])
def test_no_more_is_read_than_there_is_room_for(room: int) -> None:
    source = Counted(20)
    taken = read_ahead(source, room)
    for number in range(5):
        assert next(taken) == number
        assert source.await_read(min(20, number + 1 + room))  # it does read ahead
        assert source.read <= number + 1 + room  # and never further
    taken.close()
    assert readers() == []
    assert source.read <= 5 + room


def test_without_room_nothing_is_read_before_it_is_asked_for() -> None:
    source = Counted(5)
    taken = read_ahead(source, 0)
    assert [next(taken), next(taken)] == [0, 1]
    assert source.read == 2


@pytest.mark.parametrize("room", [0, 1])
def test_an_error_of_the_source_comes_after_what_was_read_before_it(room: int) -> None:
    taken = read_ahead(Counted(5, fails_at=2), room)
    assert [next(taken), next(taken)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        next(taken)
    assert readers() == []
