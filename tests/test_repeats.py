"""Runs that were done again: what their page says of them."""

import re
from datetime import timedelta

import pytest

from commands import files_below
from test_figures import results
from test_pages import page_of
from tlstm.records.schema import Record, write_record
from tlstm.records.store import append, load
from tlstm.reporting.pages import repeats as in_words
from tlstm.results import main
from worlds import STARTED, make_record

__all__ = ["results"]  # a fixture


def time(number: int, curve: list[tuple[int, float, float]], **changes) -> Record:
    """The record of a run's first time, its second and so on; later ones may see more samples."""
    started = STARTED + timedelta(hours=number)
    validations = [
        {"samples": samples, "accuracy": accuracy, "loss": loss, "seconds": number}
        for samples, accuracy, loss in curve
    ]
    ends = {"started": started, "finished": started + timedelta(minutes=1)}
    return make_record(curve=validations, samples=curve[-1][0], **ends, **changes)


FIRST = [(10, 0.25, 2.0), (20, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        ([FIRST], ""),
        ([FIRST, FIRST], "once, with the same"),
        ([FIRST, [*FIRST, (30, 0.75, 0.5)], FIRST], "2 times, with the same"),
        ([FIRST, [(20, 0.5, 1.0)]], "once, with the same"),
        ([FIRST, [(15, 0.5, 1.0)]], ""),
        ([FIRST, [(10, 0.25, 2.0), (20, 0.375, 1.0)]], "0 of them .*, else .* 12.5 points apart"),
        ([FIRST, [(10, 0.25, 2.0), (20, 0.5, 1.0 + 1e-12)]], "else .* 0.0 points apart"),
        ([FIRST, FIRST, [(10, 0.5, 2.0)]], "2 times, 1 of them .* 25.0 points apart"),
    ],
)
def test_repeats_are_counted_and_compared_where_both_were_validated(curves, said):
    times = [time(number, curve) for number, curve in enumerate(curves)]
    found = in_words(reversed(times))
    assert (found == "") == (said == "")
    assert re.search(said, found)


def test_other_runs_are_no_repeats():
    seeds = [time(0, FIRST, identifier=f"{seed:016x}", seed=seed) for seed in range(3)]
    assert in_words(seeds) == ""


def test_a_page_says_so_and_shows_the_last_time(results):
    append([time(0, FIRST), time(1, [*FIRST, (3_000, 0.75, 0.5)])], results)
    page = page_of(results, "fig4")
    assert "Runs at smoke scale that were done again: once, with the same accuracy and loss" in page
    assert "1 run, " in page
    assert "not within 3K" in page


def test_ones_own_runs_are_shown_beside_the_committed_ones_which_stay(results, tmp_path):
    """The committed files keep every byte, and new ones are taken in by and by."""
    own = tmp_path / "runs" / "results"
    append([time(0, FIRST)], results)
    committed = files_below(results)
    run = tmp_path / "runs" / "fig4" / "memorization"
    run.mkdir(parents=True)
    write_record(time(1, [(10, 0.25, 2.0), (20, 0.75, 0.5)]), run / "record.json")
    for _ in range(2):
        assert main(["copy", "--committed", str(results), "--results", str(own)]) == 0
        collect = ["collect", "--runs", str(tmp_path / "runs"), "--results", str(own)]
        assert main([*collect, "fig4"]) == 0
        assert len(load(own, "fig4")) == 2
    page = page_of(own, "fig4")
    assert "done again: once, 0 of them with the same accuracy and loss" in page
    assert committed == {path: path.read_bytes() for path in committed}
    append([time(2, FIRST, seed=1, identifier="1" * 16)], results)
    assert main(["copy", "--committed", str(results), "--results", str(own)]) == 0
    assert len(load(own, "fig4")) == 3
