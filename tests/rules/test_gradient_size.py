"""The rule about clipping on a window in which one sample has no gradient norm."""


def test_clipping_that_is_always_active_is_reported_with_its_share_and_without_a_fix(written):
    norms = [2.0] * 63 + [None] + [2.0] * 40
    run = written({"config": {"training": {"clip": 1.0}}, "steps": 104, "series": {"total_gradient_norm": norms}})
    (finding,) = [finding for finding in run.findings() if finding.code == "GRD003"]
    assert finding.message.startswith("98.4 % of steps were clipped at 1")
    assert finding.fixes == ()
