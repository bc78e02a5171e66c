"""A launcher launches what Triton would, and calls that look alike are checked and decided once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stabmon.kernels import AuxRequest, cache, choice, sigmoid_attention, sigmoid_attention_varlen
from stabmon.kernels.launching.launcher import Launcher
from stabmon.kernels.triton import launch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCRIPT = Path(__file__).with_name("repeated_launches.py")
FOLDER = os.environ.get("STABMON_TRITONS")
RELEASES = [None, *(sorted(path for path in Path(FOLDER).iterdir() if path.is_dir()) if FOLDER else ())]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name if path else "installed")
def test_later_launches_take_the_kernel_and_the_arguments_that_triton_would(release, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    places = [str(SCRIPT.parents[2])] if release is None else [str(release), str(SCRIPT.parents[2])]
    environment |= {"PYTHONPATH": os.pathsep.join(places), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


class Kernel:
    """Stands for a kernel under Triton's interpreter, which returns nothing."""

    def __init__(self):
        self.calls = []

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.calls.append((grid, arguments, constants))


def test_what_triton_did_not_compile_is_launched_by_name_each_time():
    kernel, tensor = Kernel(), torch.zeros(4)
    launcher = Launcher(kernel, (5,), (None, lambda x: ("described", x.data_ptr()), None), (7,), {"SIZE": 4})
    for factor in (0.5, 0.25):
        launcher((tensor, tensor, None), factor)
    described = ("described", tensor.data_ptr())
    assert kernel.calls == [((5,), (tensor, described, None, 7, factor), {"SIZE": 4}) for factor in (0.5, 0.25)]


def draw(n=8, **options):
    return [torch.randn(1, 2, n, 16, **options) for _ in range(3)]


def counted(monkeypatch, module, name):
    """Return a list to which each call of a module's function adds its arguments."""
    calls, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: (calls.append(given), function(*given))[1])
    return calls


def test_calls_of_one_signature_are_decided_once(monkeypatch):
    decided = counted(monkeypatch, choice, "choose")
    for options in ({"bias": -2.0}, {"bias": -3.0}, {"bias": -2.0, "window": 3}):
        sigmoid_attention(*draw(), **options)
    assert len(decided) == 2
    sigmoid_attention(*draw(n=9), bias=-2.0)
    sigmoid_attention(*draw(dtype=torch.float64), bias=-2.0)
    assert len(decided) == 4


@pytest.mark.parametrize(
    ("accepted", "refused", "message"),
    [
        ({"window": 1}, {"window": True}, "window must be a whole number, got bool"),
        ({"window": 2}, {"window": 2.0}, "window must be a whole number, got float"),
        ({"is_causal": True}, {"is_causal": 1}, "is_causal must be True or False, got 1"),
        ({"enable_gqa": False}, {"enable_gqa": 0}, "enable_gqa must be True or False, got 0"),
        ({"deterministic": True}, {"deterministic": 1}, "deterministic must be True, False or None, got 1"),
        ({"bias": -1.0}, {"bias": True}, "bias must be None, a number"),
        ({"return_aux": AuxRequest(2)}, {"return_aux": (2, 0.5, None)}, "return_aux must be an AuxRequest"),
        ({"bias": torch.zeros(2)}, {"bias": torch.zeros(2).int()}, "bias must be of a floating type"),
    ],
    ids=[
        "bool-window",
        "float-window",
        "whole-causal",
        "whole-gqa",
        "whole-deterministic",
        "bool-bias",
        "tuple-request",
        "whole-bias",
    ],
)
def test_what_only_equals_an_accepted_argument_is_still_refused(accepted, refused, message):
    tensors = draw()
    sigmoid_attention(*tensors, **accepted)
    with pytest.raises(TypeError, match=message):
        sigmoid_attention(*tensors, **refused)


def test_a_refused_call_is_refused_again():
    query, key, value = draw()
    for _ in range(2):
        with pytest.raises(ValueError, match="key must have shape"):
            sigmoid_attention(query, key[:, :, :, :8], value)


def test_no_more_results_are_kept_than_a_bound(monkeypatch):
    monkeypatch.setattr(cache, "MOST", 3)
    for number in range(10):
        assert cache.memoize(number, lambda number=number: [number]) == [number]
    assert [cache.memoize(number, lambda: "anew") for number in (9, 8, 7, 6)] == [[9], [8], [7], "anew"]
    assert cache.memoize([9], lambda: "no key") == "no key"


def test_calls_on_copies_of_unaligned_tensors_are_prepared_once(monkeypatch):
    prepared = counted(monkeypatch, launch, "forward_config")
    for _ in range(2):
        query, key, value = (torch.randn(1, 2, 8, 17, device=DEVICE)[..., 1:] for _ in range(3))
        output = sigmoid_attention(query, key, value, backend="triton")
        torch.testing.assert_close(output, sigmoid_attention(query, key, value, backend="eager"))
    assert len(prepared) == 1


def test_what_neither_checks_nor_choice_depend_on_is_one_decision(monkeypatch):
    decided = counted(monkeypatch, choice, "choose")
    for step, is_deterministic in enumerate((True, False, True)):
        request = AuxRequest(2, offset=step / 3)
        sigmoid_attention(*draw(), return_aux=request, is_causal=True, deterministic=is_deterministic)
    assert len(decided) == 1


def test_packed_calls_whose_longest_sequences_differ_are_one_decision(monkeypatch):
    decided = counted(monkeypatch, choice, "choose")
    packed = [torch.randn(8, 2, 16) for _ in range(3)]
    for longest in (4, 5):
        starts = torch.tensor([0, longest, 8])
        sigmoid_attention_varlen(*packed, starts, starts, longest, longest)
    assert len(decided) == 1
