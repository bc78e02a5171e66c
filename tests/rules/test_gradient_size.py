"""The rule about clipping on a window in which one sample has no gradient norm."""


def test_the_threshold_for_clipping_that_is_always_active_is_the_median_of_what_was_measured(written):
    norms = [2.0] * 63 + [None] + [2.0] * 40
    run = written({"config": {"training": {"clip": 1.0}}, "steps": 104, "series": {"total_gradient_norm": norms}})
    (finding,) = [finding for finding in run.findings() if finding.code == "GRD003"]
    assert finding.fix.value == 2.0
