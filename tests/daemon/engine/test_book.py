from daemon.engine.book import EngineBook


def _counters(captured, idle, measured, **dropped):
    dropped = {name.replace("_", "."): count for name, count in dropped.items()}
    return {"captured": captured, "idle": idle, "measured": measured, "dropped": dropped}


def test_totals_are_the_living_engines_counters():
    book = EngineBook()
    book.heartbeat(_counters(10, 3, 6, ring_full=1))
    totals = book.totals()
    assert (totals.captured, totals.idle, totals.measured, dict(totals.dropped)) == (10, 3, 6, {"ring.full": 1})


def test_what_a_dead_engine_had_in_hand_is_named():
    book = EngineBook()
    book.received(5)
    book.heartbeat(_counters(10, 3, 6, ring_full=1))
    book.engine_ended()
    totals = book.totals()
    assert totals.measured == 5
    assert totals.dropped == {"ring.full": 1, "engine.died": 1}
    assert totals.captured == totals.idle + totals.measured + totals.dropped.total()


def test_measures_that_came_after_the_last_heartbeat_count():
    book = EngineBook()
    book.heartbeat(_counters(10, 4, 6))
    book.received(9)
    book.engine_ended()
    totals = book.totals()
    assert (totals.captured, totals.measured, totals.dropped.total()) == (13, 9, 0)


def test_lives_add_up():
    book = EngineBook()
    for _ in range(3):
        book.heartbeat(_counters(10, 10, 0))
        book.engine_ended()
    book.heartbeat(_counters(2, 1, 1))
    assert book.totals().captured == 32


def test_an_engine_that_died_before_its_first_word_changes_nothing():
    book = EngineBook()
    book.engine_ended()
    assert book.totals().captured == 0
