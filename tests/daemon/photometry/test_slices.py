from daemon.photometry.slices import Sliced, completed


def counted(upto: int) -> Sliced[int]:
    total = 0
    for k in range(upto):
        total += k
        yield
    return total


def outer() -> Sliced[tuple[int, int]]:
    first = yield from counted(4)
    second = yield from counted(0)
    return first, second


def test_it_returns_what_the_work_does_however_many_slices_it_takes() -> None:
    assert completed(counted(5)) == 10
    assert completed(counted(0)) == 0
    assert completed(outer()) == (6, 0)


def test_it_goes_on_where_others_left_off() -> None:
    work = counted(5)
    next(work)
    next(work)
    assert completed(work) == 10
