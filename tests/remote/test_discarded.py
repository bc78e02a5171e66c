"""A run that a later sink refuses leaves nothing of it, where it was to be sent too."""

import pytest
import torch
from torch import nn

import stabmon
from stabmon.errors import StabmonError
from stabmon.kernels import sigmoid_attention


class Refusing:
    name = "refusing"

    def start(self, info, layout):
        raise StabmonError("no run today")

    def sample(self, step, time, values): ...

    def findings(self, changed): ...

    def close(self, state): ...


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = (part[:, None] for part in self.project(x).chunk(3, -1))
        return sigmoid_attention(q, k, v).mean()


def test_a_watch_that_a_sink_refuses_leaves_no_folder(tmp_path):
    model = Attention()
    adam, batch = torch.optim.Adam(model.parameters()), torch.randn(2, 4, 8)
    sent = {"dir": tmp_path / "runs", "name": "lm", "server": "http://127.0.0.1:1", "console": False}
    with pytest.raises(StabmonError, match="no run today"):
        stabmon.watch(model, adam, batch=batch, sinks=[Refusing()], **sent)
    assert not (tmp_path / "runs").exists()
