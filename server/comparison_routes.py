"""Runs side by side over HTTP."""

from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query

from stabmon.reports.comparison import APART, FEWEST, MOST, Comparison, compare
from stabmon.server.problems import OF_A_RUN, problems
from stabmon.server.requests import Revalidated
from stabmon.server.served import Served, reading

router = APIRouter(route_class=Revalidated)


@router.get("/compare", responses=problems(*OF_A_RUN))
def comparison(
    store: Served,
    run: Annotated[
        list[str],
        Query(
            min_length=FEWEST, max_length=MOST, json_schema_extra={"uniqueItems": True}, description="One for each run."
        ),
    ],
    apart: Annotated[float, Query(ge=0, le=1, description="Share by which numbers that have parted differ.")] = APART,
) -> Comparison:
    """Compare runs with the first: settings, findings, where their numbers part, over all samples, and final losses."""
    names = dict.fromkeys(run)
    if len(names) < FEWEST:
        raise HTTPException(422, f"run: expected {FEWEST} to {MOST} different runs, got {run!r}")
    with ExitStack() as opened:
        return compare({name: opened.enter_context(reading(store, name)) for name in names}, apart)
