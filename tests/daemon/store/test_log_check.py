"""Logs that are looked at while somebody else uses them; damaged ones are in tests/faults."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from daemon.store import log_check
from daemon.store.log_check import lost_log_bytes, unseen_log_bytes


def test_a_log_that_is_cut_short_meanwhile_has_lost_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute("create table t (x)")
        conn.executemany("insert into t values (?)", [(bytes(3000),)] * 40)
        looks = {name: getattr(log_check, name) for name in ("_unseen", "_lost")}
        cut = []

        def at_the_worst_moment(name):
            def look(*arguments):
                conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                cut.append(name)
                return looks[name](*arguments)

            return look

        for name, whole in (("_unseen", unseen_log_bytes), ("_lost", lost_log_bytes)):
            conn.execute("insert into t values (?)", (bytes(30_000),))
            monkeypatch.setattr(log_check, name, at_the_worst_moment(name))
            assert whole(path) == 0
        assert cut == ["_unseen", "_lost"]
