"""Facts read off machine code."""

from tests.kernels.hopper import machine_code

LINE = "        /*{:04x}*/                   {} ;"
BRANCHES = [
    "@!P0 BRA `(.L_x_1)",
    "UIADD3 UR4, UR24, 0x2, URZ",
    "HGMMA.64x64x16.F32 R24, gdesc[UR4], RZ, !UPT",
    "BRA `(.L_x_2)",
    ".L_x_1:",
    "HGMMA.64x64x16.F32 R24, gdesc[UR4], RZ, !UPT",
    ".L_x_2:",
    "EXIT",
]


def code(lines):
    return "\n".join(text if text.startswith(".L") else LINE.format(16 * i, text) for i, text in enumerate(lines))


def test_a_descriptor_that_only_one_branch_computes_is_undefined():
    given = ["ULDC.64 UR24, c[0x0][0x210]", "UMOV UR5, URZ", "ULDC.64 UR6, c[0x0][0x218]"]
    assert machine_code.undefined(code(given + BRANCHES)) == [4]
    assert machine_code.undefined(code(["UMOV UR4, URZ", *given, *BRANCHES])) == []


def test_descriptors_in_a_pair_and_products_with_registers_are_distinguished():
    lines = ["ULDC.64 UR6, c[0x0][0x210]", "HGMMA.64x64x16.F32 R24, R88, gdesc[UR4].tnspB, R24", "EXIT"]
    assert machine_code.undefined(code(lines)) == []
    assert machine_code.undefined(code(["ULDC UR6, c[0x0][0x210]", *lines[1:]])) == [7]


def test_a_register_that_only_a_loop_defines_is_undefined():
    loop = [".L_x_1:", "UIADD3 UR4, UR4, 0x1, URZ", "@P0 BRA `(.L_x_1)", "EXIT"]
    assert machine_code.undefined(code(loop)) == [4]
    assert machine_code.undefined(code(["ULOP3.LUT UP0, UR4, UR5, 0x1, URZ, 0xc0, !UPT", *loop])) == [5]


def test_only_the_stack_in_loops_with_products_counts():
    outside = ["STL [R1], R4", ".L_x_1:", "LDL R4, [R1]", "@P0 BRA `(.L_x_1)"]
    inside = [".L_x_2:", "LDL R4, [R1]", "HGMMA.64x64x16.F32 R24, gdesc[UR4], RZ, !UPT", "@P0 BRA `(.L_x_2)", "EXIT"]
    assert machine_code.spills(code(outside + inside)) == 1


def test_products_are_overlapped_and_buffers_guarded():
    wait, done = "WARPGROUP.DEPBAR.LE gsb0, 0x1", "WARPGROUP.DEPBAR.LE gsb0, 0x0"
    release = "@!P1 SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR4], RZ"
    lines = [wait, "MUFU.TANH R4, R4", "MUFU.TANH R5, R5", done, "BAR.SYNC.DEFER_BLOCKING 0x2, 0x80", release]
    assert machine_code.overlapped(code(lines)) == 2
    assert machine_code.unguarded(code(lines)) == 0
    assert machine_code.unguarded(code([done, release])) == 1
