"""The store in SQLite and in a real PostgreSQL, by the same calls."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from toploc_client.exchange import Exchange
from toploc_client.judgement import Judgement, Opinion
from toploc_gateway.errors import StoreUnavailable
from toploc_gateway.stores.answers import Answer, Answers, Listed
from toploc_gateway.stores.database import Database
from toploc_gateway.stores.standing import POINTS, Point, Standing, Standings
from toploc_gateway.stores.tally import Tally, Total

from toploc.report import REQUIRED, Check, Report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from parties import Provider, Running

FOUND = Check(name="response", status="weak", reason="same_proofs", message='"\ud800\x00" was said')
ACCEPTED = Report.of([Check(name=name, status="passed", message="fine") for name in REQUIRED])  # type: ignore[arg-type]
ANSWER = Answer(
    *("a1", 1e9 + 0.5, "one", "mini", "/v1/chat/completions", "chatcmpl-1", "pending", None),
    *((FOUND,), None, Exchange(b'{"a": 1}', b'{"b": "\\ud800\\u0000"}')),
)


class Postgres:
    """A server of its own, as a user who may start one."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._as_user("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-N")
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = str(self.folder / "log")
        self._as_user("pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        self._as_user("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def _as_user(self, program: str, *arguments: str) -> None:
        command = [str(binary(program)), *arguments]
        if os.geteuid() == 0:  # which PostgreSQL refuses
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr


def binary(name: str) -> str | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Where psycopg or the server is missing its tests are skipped (Debian: `apt-get install postgresql`)."""
    pytest.importorskip("psycopg")
    if binary("initdb") is None:
        pytest.skip("no PostgreSQL (Debian: apt-get install postgresql)")
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
        made.close()
        Path(folder).chmod(0o777)
        served = Postgres(Path(folder), port)
        yield served
        served.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'store.db'}"
    served = request.getfixturevalue("postgres")  # before psycopg is imported, which may not be here
    import psycopg

    with psycopg.connect(served.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return str(served.url)


def run(url: str, work: Callable[[Answers, Standings], Awaitable[Any]]) -> Any:
    async def inner() -> Any:
        database = Database(url)
        try:
            return await work(Answers(database), Standings(database))
        finally:
            await database.close()

    return asyncio.run(inner())


def test_an_answer_comes_back_as_it_was(url: str) -> None:
    async def work(answers: Answers, _: Standings) -> None:
        await answers.add(ANSWER)
        assert await answers.get("a1") == ANSWER
        judgement = Judgement.by("all", [Opinion(verifier="v", report=ACCEPTED)], [FOUND])
        await answers.judge("a1", "accepted", None, judgement)
        assert await answers.get("a1") == replace(ANSWER, verdict="accepted", report=judgement)
        assert await answers.get("none") is None
        assert await answers.upstream_of("chatcmpl-1") == "one"
        assert await answers.upstream_of("chatcmpl-2") is None
        assert await answers.counts() == [("one", "mini", "accepted", 1)]
        await answers.add(replace(ANSWER, verdict="pending", own_checks=()))
        assert [(one.verdict, one.own_checks) for one in await answers.recent(5)] == [("pending", ())]

    run(url, work)


def test_what_is_pending_is_checked_by_one(url: str) -> None:
    """Of two gateways; and again by another if the first does not come back."""

    async def work(answers: Answers, _: Standings) -> None:
        second = Answers(Database(url))
        for number in range(20):
            await answers.add(replace(ANSWER, id=f"a{number}", made_at=float(number)))
        await answers.add(replace(ANSWER, id="held"), held=60.0)
        await answers.add(replace(ANSWER, id="done", verdict="accepted"))
        claimed = await asyncio.gather(*(one.claim(5) for one in (answers, second) * 3))
        names = [one.id for part in claimed for one in part]
        assert sorted(names) == sorted(f"a{number}" for number in range(20))
        assert all([one.made_at for one in part] == sorted(one.made_at for one in part) for part in claimed)
        await second.release(["a3"])
        [again] = await answers.claim(5)
        assert (again.id, again.attempts) == ("a3", 1)
        await answers.release(["a4"], after=60.0)
        assert await answers.claim(5) == []
        await second._database.close()

    run(url, work)


def test_old_answers_are_forgotten_and_pending_ones_are_not(url: str) -> None:
    async def work(answers: Answers, _: Standings) -> None:
        now = time.time()
        for name, age, verdict in (("old", 3, "accepted"), ("new", 1, "accepted"), ("waits", 3, "pending")):
            await answers.add(replace(ANSWER, id=name, made_at=now - age * 86_400, verdict=verdict))
        assert await answers.purge(2) == 1
        assert {one.id for one in await answers.recent(5)} == {"new", "waits"}

    run(url, work)


def test_standings_and_sums(url: str) -> None:
    async def work(_: Answers, standings: Standings) -> None:
        assert await standings.all() == {}
        one = Standing("one", "quarantined", 5.5, 9.5, "rejected: activations", "a1", 0)
        await standings.put(one)
        await standings.put(Standing("two", "probation", 1.0, probation=2))
        assert (await standings.all())["one"] == one
        assert [await standings.passed("two", 7.0) for _ in range(2)] == [1, 0]
        assert (await standings.all())["two"] == Standing("two", "trusted", 7.0)
        assert await standings.passed("two", 8.0) == 0
        other = Standings(Database(url))
        for ratio in (2.0, -5.0, 1.0):
            await asyncio.gather(*(s.add("one", "mini", "int8", ratio, 4.0, 2) for s in (standings, other)))
        [found] = await standings.sums()
        assert (found.value, found.highest, found.answers) == (2.0, 4.0, 6)
        assert found.threshold == pytest.approx(4.0 + 1.0986, abs=1e-3)
        await standings.forget("one")
        assert await standings.sums() == []
        await other._database.close()

    run(url, work)


def test_the_newest_sums_of_a_test(url: str) -> None:
    """A line of them, which begins anew with the test."""

    async def work(_: Answers, standings: Standings) -> None:
        for number in range(1, 2 * POINTS + 11):
            await standings.add("one", "mini", "int8", 1.0 if number % 2 else -0.5, 4.0, 10_000)
        await standings.add("one", "mini", "int4", 2.5, 3.0, 10_000)
        points = await standings.points()
        assert points["one", "mini", "int4"] == [Point(1, 2.5, 3.0)]
        line = points["one", "mini", "int8"]
        assert [point.answers for point in line] == [*range(POINTS + 11, 2 * POINTS + 11)]
        [found] = [one for one in await standings.sums() if one.test == "int8"]
        assert line[-1] == Point(found.answers, found.value, found.threshold)
        kept = await standings._database.run(lambda session: session.rows("SELECT COUNT(*) FROM toploc_points"))
        assert kept[0][0] <= 2 * POINTS + 1
        await standings.forget("one")
        assert await standings.points() == {}
        await standings.add("one", "mini", "int8", 1.0, 4.0, 10_000)
        assert (await standings.points())["one", "mini", "int8"] == [Point(1, 1.0, 4.0)]

    run(url, work)


def test_since_when_an_upstream_is_trusted(url: str) -> None:
    async def work(answers: Answers, standings: Standings) -> None:
        await standings.begin(["one"], 100.0)
        assert await standings.all() == {"one": Standing("one", "trusted", 100.0)}
        await standings.begin(["one"], 200.0)  # another gateway, or another start
        assert (await standings.all())["one"].since == 100.0
        await answers.add(replace(ANSWER, made_at=50.0))  # of a gateway that did not write it down
        await standings.begin(["two"], 200.0)
        assert (await standings.all())["two"].since == 50.0
        await standings.put(Standing("one", "quarantined", 300.0))
        await standings.begin(["one"], 400.0)
        assert (await standings.all())["one"].state == "quarantined"

    run(url, work)


def test_lists_have_no_bodies(url: str) -> None:
    async def work(answers: Answers, _: Standings) -> None:
        for number in range(6):
            verdict = ("accepted", "pending")[number % 2]
            upstream = ("one", "two")[number // 3]
            await answers.add(
                replace(ANSWER, id=f"a{number}", made_at=float(number), verdict=verdict, upstream=upstream)
            )
        assert [one.id for one in await answers.listed(4, before=5.0)] == ["a4", "a3", "a2", "a1"]
        assert [one.id for one in await answers.listed(9, before=9.0, upstream="one")] == ["a2", "a1", "a0"]
        assert [one.id for one in await answers.listed(9, before=9.0, verdict="pending")] == ["a5", "a3", "a1"]
        [one] = await answers.listed(9, before=9.0, upstream="two", verdict="accepted")
        assert one == Listed("a4", 4.0, "two", "mini", "/v1/chat/completions", "chatcmpl-1", "accepted", None)
        assert await answers.pending() == {("one", "mini"): 1, ("two", "mini"): 2}

    run(url, work)


def test_gateways_start_at_once_at_a_new_store(url: str) -> None:
    async def work(answers: Answers, _: Standings) -> None:
        others = [Answers(Database(url)) for _ in range(6)]
        assert await asyncio.gather(*(one.pending() for one in (answers, *others))) == [{}] * 7
        for one in others:
            await one._database.close()

    run(url, work)


def test_a_tally_adds_up(url: str) -> None:
    """Of two gateways, written in any order; times are right to a tenth."""

    async def work(answers: Answers, _: Standings) -> None:
        tally, other = Tally(answers._database), Tally(Database(url))
        await tally.flush()
        for seconds in range(1, 101):
            (tally if seconds % 2 else other).add("one", "mini", "accepted", float(seconds), 10)
        for made in (tally, other):
            made.add("one", "mini", "unchecked")
            made.add("two", "mini", "rejected", 0.0)
        await asyncio.gather(tally.flush(), other.flush())
        tally.add("one", "mini", "rejected", 1.0, 5)
        await tally.flush()
        await tally.flush()
        totals = await other.totals(1)
        one = totals["one", "mini"]
        assert one.verdicts == {"accepted": 100, "unchecked": 2, "rejected": 1}
        assert (one.seconds, one.tokens, one.buckets.total()) == (5051.0, 1005, 101)
        assert one.quantile(0.5) == pytest.approx(50, rel=0.1)
        assert one.quantile(0.95) == pytest.approx(95, rel=0.1)
        assert Total().quantile(0.5) is None
        assert totals["two", "mini"].verdicts == {"rejected": 2}
        await other._database.run(lambda session: session.execute("UPDATE toploc_tally SET day = day - 3"))
        assert await other.totals(2) == {}
        assert (await other.totals(4)).keys() == totals.keys()
        await other.purge(2)
        assert await other.totals(4) == {}
        await other._database.close()

    run(url, work)


def test_a_tally_keeps_what_could_not_be_written(tmp_path: Path) -> None:
    async def work(answers: Answers, _: Standings) -> None:
        away = Tally(Database(f"sqlite:{tmp_path / 'none' / 'store.db'}"))
        away.add("one", "mini", "accepted", 1.0, 5)
        with pytest.raises(StoreUnavailable):
            await away.flush()
        away.add("one", "mini", "accepted", 1.0, 5)
        (tmp_path / "none").mkdir()
        await away.flush()
        assert (await away.totals(1))["one", "mini"].verdicts == {"accepted": 2}
        await away._database.close()

    run(f"sqlite:{tmp_path / 'store.db'}", work)


def test_a_transaction_that_fails_leaves_nothing(url: str) -> None:
    async def work(answers: Answers, _: Standings) -> None:
        def fails(session: Any) -> None:
            session.execute("DELETE FROM toploc_answers")
            session.execute("SELECT nonsense")

        await answers.add(ANSWER)
        with pytest.raises(StoreUnavailable):
            await answers._database.run(fails)
        assert answers.failing
        assert await answers.get("a1") == ANSWER
        await answers._database.probe()
        assert not answers.failing

    run(url, work)


def test_postgres_goes_away_and_comes_back(postgres: Postgres) -> None:
    async def work(answers: Answers, _: Standings) -> None:
        await answers.add(ANSWER)
        postgres.stop()
        with pytest.raises(StoreUnavailable):
            await answers.get("a1")
        postgres.start()
        assert await answers.get("a1") == ANSWER
        postgres.stop()
        postgres.start()  # between two calls: nobody notices
        assert await answers.get("a1") == ANSWER

    run(postgres.url, work)


def test_two_gateways_at_one_truth(
    start: Callable[..., Running], provider: Provider, other: Provider, postgres: Postgres
) -> None:
    """What one finds holds at both."""
    both = [
        start(
            provider,
            other,
            store={"url": postgres.url},
            policy={"when": "background", "quarantine": {"seconds": "never"}},
        )
        for _ in range(2)
    ]
    provider.lying.change = lambda response: response["choices"][0]["message"].update(content="a lie")
    reply = both[0].ask(provider)
    for gateway in both:
        gateway.eventually(lambda gateway=gateway: gateway.gateway.trust.of("one").state == "quarantined")
        assert gateway.ask(provider).headers["toploc-upstream"] == "two"
        assert gateway.report(reply)["verdict"] == "rejected"
    both[1].http.post("/toploc/upstreams/one/return")
    both[0].eventually(lambda: both[0].gateway.trust.of("one").state == "probation")
