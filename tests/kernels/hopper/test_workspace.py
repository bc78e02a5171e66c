import pytest
import torch

from stabmon.kernels.hopper import workspace

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("shape", [(2, 3, 100, 40), (1, 2, 33, 128)], ids=["B2-H3-N100-D40", "B1-H2-N33-D128"])
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "strided"])
def test_the_summed_gradient_is_rounded_into_place(shape, dense):
    summed = torch.randn(shape, device=DEVICE)
    batch, heads, length, dim = shape
    grad = torch.full(shape, torch.nan, dtype=torch.float16, device=DEVICE)
    if not dense:
        grad = torch.full((batch, length, heads, dim), torch.nan, dtype=torch.float16, device=DEVICE).transpose(1, 2)
    workspace.rounding(grad)((summed, grad), 0.375)
    torch.testing.assert_close(grad, (0.375 * summed).half(), rtol=0, atol=2**-10)
