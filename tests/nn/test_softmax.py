import pytest
import torch

from stabmon.nn import Block, SigmoidAttention, SoftmaxAttention, alibi_slopes

WIDTH, HEADS, LENGTH = 12, 3, 7


def attention(**options: object) -> SoftmaxAttention:
    torch.manual_seed(0)
    return SoftmaxAttention(WIDTH, HEADS, **options).double()


def tokens() -> torch.Tensor:
    return torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(module: SoftmaxAttention, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    query, key, value = module.project(x)
    rows = torch.zeros_like(query)
    for batch in range(2):
        keys = LENGTH if lengths is None else int(lengths[batch])
        for i in range(LENGTH):
            until = min(keys, i + 1) if module.is_causal else keys
            logits = (query[batch, :, i, None] * key[batch, :, :until]).sum(-1) / 2
            if module.position == "alibi":
                logits = logits - alibi_slopes(HEADS).double()[:, None] * (i - torch.arange(until)).abs()
            rows[batch, :, i] = (logits.softmax(-1)[..., None] * value[batch, :, :until]).sum(1)
    return rows.transpose(1, 2).flatten(2) @ module.out.weight.T


@pytest.mark.parametrize("lengths", [None, torch.tensor([7, 3])], ids=["full", "padded"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["every-key", "causal"])
@pytest.mark.parametrize("position", [None, "rope", "alibi"])
def test_the_output_equals_the_formula(position: str | None, is_causal: bool, lengths: torch.Tensor | None) -> None:
    module = attention(position=position, is_causal=is_causal, qk_norm=True)
    torch.testing.assert_close(module(tokens(), lengths), by_hand(module, tokens(), lengths))


def test_a_softmax_module_draws_the_weights_of_the_sigmoid_one() -> None:
    torch.manual_seed(0)
    sigmoid = SigmoidAttention(WIDTH, HEADS, max_length=8, qk_norm=True).state_dict()
    sigmoid.pop("bias")
    torch.manual_seed(0)
    softmax = SoftmaxAttention(WIDTH, HEADS, qk_norm=True).state_dict()
    assert sigmoid.keys() == softmax.keys()
    assert all(torch.equal(sigmoid[name], softmax[name]) for name in softmax)


@pytest.mark.parametrize("kind", [SigmoidAttention, SoftmaxAttention])
def test_what_the_padding_holds_changes_no_token_before_it(kind: type) -> None:
    options = {"max_length": LENGTH} if kind is SigmoidAttention else {}
    block, lengths = Block(WIDTH, kind(WIDTH, HEADS, position="rope", **options)).double(), torch.tensor([4, 7])
    other = tokens()
    other[0, 4:] = 9.0
    torch.testing.assert_close(block(tokens(), lengths)[0, :4], block(other, lengths)[0, :4])
    assert not torch.allclose(block(tokens())[0, :4], block(other)[0, :4])


def test_compiles_into_one_graph() -> None:
    module, lengths = attention(position="alibi", is_causal=True), torch.tensor([7, 3])
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens(), lengths), module(tokens(), lengths))


@pytest.mark.parametrize("position", [None, "rope", "alibi"])
def test_autocast_works_with_every_position(position: str | None) -> None:
    module = attention(position=position, qk_norm=True).float()
    with torch.autocast("cpu", torch.bfloat16):
        low = module(tokens().float())
    assert low.dtype == torch.bfloat16
    assert (low.double() - module.double()(tokens())).abs().max() < 0.05
