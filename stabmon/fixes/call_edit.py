"""Calls in source code, found and given arguments with comments and layout kept. No torch."""

import libcst as cst
from libcst import matchers


def calls(tree: cst.CSTNode, name: str) -> list[cst.Call]:
    """Return the calls of the function, class or method ``name`` within ``tree``."""
    named = matchers.Call(func=matchers.Name(name) | matchers.Attribute(attr=matchers.Name(name)))
    return [node for node in matchers.findall(tree, named) if isinstance(node, cst.Call)]


def argument(call: cst.Call, name: str) -> cst.Arg | None:
    """Return the keyword argument ``name`` of ``call``, or None."""
    return next((one for one in call.args if one.keyword is not None and one.keyword.value == name), None)


def with_argument(call: cst.Call, name: str, value: str) -> cst.Call:
    """Return ``call`` with ``name=value``, in the place of the present value or behind the last argument.

    Where arguments have lines of their own, so does a new one.
    """
    there, expression = argument(call, name), cst.parse_expression(value)
    if there is not None:
        return call.with_deep_changes(there, value=expression)
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    new = cst.Arg(expression, cst.Name(name), equal=equal)
    if not call.args:
        return call.with_changes(args=[new])
    *others, last = call.args
    before = call.whitespace_before_args if not others else _after(others[-1])
    if not isinstance(before, cst.ParenthesizedWhitespace):
        new = new.with_changes(comma=last.comma, whitespace_after_arg=last.whitespace_after_arg)
        return call.with_changes(args=[*others, _followed(last, cst.SimpleWhitespace(" ")), new])
    between = before.with_changes(first_line=_first_line(_after(last)), empty_lines=[])
    new = _ended(new, last, _without_comment(_after(last)))
    return call.with_changes(args=[*others, _followed(last, between), new])


def _after(arg: cst.Arg) -> cst.BaseParenthesizableWhitespace:
    """Return the space behind an argument and its comma."""
    return arg.comma.whitespace_after if isinstance(arg.comma, cst.Comma) else arg.whitespace_after_arg


def _followed(arg: cst.Arg, space: cst.BaseParenthesizableWhitespace) -> cst.Arg:
    comma = cst.Comma(whitespace_after=space)
    plain = cst.SimpleWhitespace("")
    return arg.with_changes(comma=comma, whitespace_after_arg=plain)


def _ended(arg: cst.Arg, last: cst.Arg, space: cst.BaseParenthesizableWhitespace) -> cst.Arg:
    """Return ``arg`` as the last one, with ``space`` behind it and a comma where ``last`` had one."""
    if isinstance(last.comma, cst.Comma):
        return arg.with_changes(comma=cst.Comma(whitespace_after=space))
    return arg.with_changes(whitespace_after_arg=space)


def _first_line(space: cst.BaseParenthesizableWhitespace) -> cst.TrailingWhitespace:
    return space.first_line if isinstance(space, cst.ParenthesizedWhitespace) else cst.TrailingWhitespace()


def _without_comment(space: cst.BaseParenthesizableWhitespace) -> cst.BaseParenthesizableWhitespace:
    """Return ``space`` without the comment that belongs to the argument before it."""
    return (
        space.with_changes(first_line=cst.TrailingWhitespace())
        if isinstance(space, cst.ParenthesizedWhitespace)
        else space
    )
