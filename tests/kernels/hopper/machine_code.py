"""Facts about the machine code of a kernel, as ``nvdisasm -c`` prints it."""

import re


def instructions(code: str) -> tuple[list[str], dict[str, int]]:
    """Return the instructions, and the label of which follows the place of its first one."""
    found: list[str] = []
    labels: dict[str, int] = {}
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(found)
        elif instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?) *;", line):
            found.append(instruction[1])
    return found, labels


def spills(code: str) -> int:
    """Return how many accesses to the stack there are in the loop over tiles that has most of them.

    A loop over tiles holds products, and no other loop that does.
    """
    found, labels = instructions(code)
    jumps = [(i, re.match(r"@!?U?P\d+ BRA.*?(\.L_x_\d+)", text)) for i, text in enumerate(found)]
    spans = [(labels[jump[1]], i) for i, jump in jumps if jump and labels.get(jump[1], i) < i]
    loops = [span for span in spans if any("HGMMA" in text for text in found[slice(*span)])]
    inner = [(a, b) for a, b in loops if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)]
    return max((sum(text.startswith(("LDL", "STL")) for text in found[a:b]) for a, b in inner), default=0)


def _order(code: str) -> list[str]:
    return re.findall(
        r"MUFU\.(?:TANH|EX2)|WARPGROUP\.DEPBAR\.LE gsb0, 0x[01]|BAR\.SYNC|SYNCS\.ARRIVE\.TRANS64\.A1T0", code
    )


def overlapped(code: str) -> int:
    """Return how many special functions lie, at least, between a wait for S and the wait for the product before it."""
    counts, inside = [], None
    for operation in _order(code):
        if operation.endswith("0x1"):
            inside = 0
        elif operation.endswith("0x0") and inside is not None:
            counts.append(inside)
            inside = None
        elif operation.startswith("MUFU") and inside is not None:
            inside += 1
    return min(counts, default=0)


def unguarded(code: str) -> int:
    """Return how many buffers one warp releases before its group's other warps have waited for their products."""
    found, waited = 0, False
    for operation in _order(code):
        if operation.startswith("WARPGROUP"):
            waited = True
        elif operation == "BAR.SYNC":
            waited = False
        elif operation.startswith("SYNCS"):
            found += waited
    return found


def undefined(code: str) -> list[int]:
    """Return the uniform registers that some way through the code reads before anything is written to them.

    Descriptors of products are in uniform registers. What is written under a predicate counts as written.
    """
    found, labels = instructions(code)
    follow, reads, writes = [], [], []
    for i, text in enumerate(found):
        predicate, name, operands = re.match(r"(@!?U?P\d+ )?(\S+) ?(.*)", text).groups()
        jump = name.split(".")[0] in ("BRA", "BRX")
        always = jump and predicate is None and not re.match(r"!?U?P\d", operands)
        ends = name in ("EXIT", "RET") and predicate is None
        targets = [labels[label] for label in re.findall(r"\.L_x_\d+", operands) if label in labels] if jump else []
        follow.append(targets if always or ends else [*targets, i + 1][: None if i + 1 < len(found) else -1])
        read, written = _uniform(name, operands.split(", "))
        reads.append(read)
        writes.append(written)
    before: list[list[int]] = [[] for _ in found]
    for i, targets in enumerate(follow):
        for target in targets:
            before[target].append(i)
    needed: list[set[int]] = [set() for _ in found]
    open_ = list(range(len(found)))
    while open_:
        i = open_.pop()
        now = reads[i] | (set().union(*(needed[target] for target in follow[i])) - writes[i])
        if now != needed[i]:
            needed[i] = now
            open_ += before[i]
    return sorted(needed[0]) if found else []


def _uniform(name: str, operands: list[str]) -> tuple[set[int], set[int]]:
    """Return the uniform registers that an instruction reads, and those that it writes."""
    kind = name.split(".")[0]
    pair = re.search(r"\.(?:64|WIDE)", name) is not None
    target = None
    if kind in ("R2UR", "S2UR", "REDUX", "VOTEU") or (kind.startswith("U") and kind not in ("UISETP", "UPLOP3")):
        target = 1 if re.match(r"!?U?P(?:\d|T)", operands[0]) and len(operands) > 1 else 0
    read: set[int] = set()
    written: set[int] = set()
    for place, operand in enumerate(operands):
        for register in re.finditer(r"\bUR(\d+)(\.64)?", operand):
            first = int(register[1])
            if place == target:
                written |= set(range(first, first + 1 + pair))
            elif "gdesc" in operand:
                # With A in registers, the second operand, only B's descriptor, the second pair, is read.
                read |= set(range(first + 2 * (place == 2), first + 4))
            else:
                wide = "desc" in operand or register[2] or (pair and kind.startswith("U") and "WIDE" not in name)
                read |= set(range(first, first + 1 + bool(wide)))
    return read, written
