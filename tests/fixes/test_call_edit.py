"""Calls with an argument replaced or added, as a person would write them."""

import libcst as cst
import pytest

from stabmon.fixes.call_edit import calls, with_argument

CASES = {
    "replaced": ("f(1, bias=0.0, c=2)", "f(1, bias=-4, c=2)"),
    "no-arguments": ("f()", "f(bias=-4)"),
    "one-line": ("g = lambda q: mod.f(q, k)", "g = lambda q: mod.f(q, k, bias=-4)"),
    "in-parentheses": ("f(q, (k))", "f(q, (k), bias=-4)"),
    "unpacked": ("f(*args, **kwargs)", "f(*args, **kwargs, bias=-4)"),
    "trailing-comma": (
        "f(\n    q,  # queries\n    k,  # keys\n)",
        "f(\n    q,  # queries\n    k,  # keys\n    bias=-4,\n)",
    ),
    "no-trailing-comma": ("f(\n    q,\n    k  # keys\n)", "f(\n    q,\n    k,  # keys\n    bias=-4\n)"),
    "aligned": ("x = f(q,\n      k)", "x = f(q,\n      k,\n      bias=-4)"),
    "one-inner-line": ("f(\n    q, k\n)", "f(\n    q, k, bias=-4\n)"),
    "one-argument": ("f(\n    q,\n)", "f(\n    q,\n    bias=-4,\n)"),
    "comment-at-the-value": (
        "f(\n    q,\n    bias=0.0,  # too large\n    c=2,\n)",
        "f(\n    q,\n    bias=-4,  # too large\n    c=2,\n)",
    ),
    "value-over-lines": ("f(\n    bias=-math.log(\n        n\n    ),\n)", "f(\n    bias=-4,\n)"),
}


@pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES)
def test_a_call_keeps_its_comments_and_layout(before: str, after: str) -> None:
    tree = cst.parse_module(before + "\n")
    (call,) = calls(tree, "f")
    assert cst.ensure_type(tree.deep_replace(call, with_argument(call, "bias", "-4")), cst.Module).code == after + "\n"


def test_calls_are_found_by_the_name_and_its_module_alone() -> None:
    tree = cst.parse_module("f(f(1))\na.b.f(2)\nf.g(3)\nff(4)\n")
    assert len(calls(tree, "f")) == 3
