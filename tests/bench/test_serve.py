"""The bench of the server: what it says of requests whose times are known."""

import pytest

from bench.speed import serve

NOTES: list[serve.Note] = [(100.0 + number, "one user", float(number), True, "1") for number in range(100)]


def test_the_figures_are_those_of_the_requests(capsys: pytest.CaptureFixture[str]) -> None:
    failed: serve.Note = (200.0, "batch of 20", 500.0, False, "")
    later: serve.Note = (151.5, "one user", 2.0, True, "2")
    serve.report([*NOTES, failed, later], [(150.0, "2")], seconds=51.0)
    *kinds, moved, figures = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split(" requests")[0].split() for line in kinds] == [
        ["batch", "of", "20", "1"],
        ["one", "user", "101"],
    ]
    assert (
        moved
        == "version 2 champion: answers 1.5 s later; until then      2 requests, p50 50.5, p99 51.0, at most 51.0 ms"
    )
    assert figures == "serve_requests_per_s=2 serve_p50_ms=49.5 serve_p99_ms=99.0 serve_errors=1"


def test_a_batch_of_the_stream_has_a_row_for_each_pair() -> None:
    batch = serve.batch_of(serve.ServeSize(50, 40, 2_000), 1_000, start=1_000)
    assert len({*zip(batch.user_ids, batch.item_ids, strict=True)}) == len(batch)
    assert batch.events.sum() == 1_000
