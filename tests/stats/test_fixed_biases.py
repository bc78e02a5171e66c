import torch

from stabmon.stats.fixed_biases import FixedBiases


def test_biases_of_all_layers_are_written_together():
    biases, buffer = FixedBiases(), torch.zeros(8)
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([[5.0], [7.0]])
    for _ in range(2):
        buffer.zero_()
        assert biases.note(slice(0, 2), first)
        assert biases.note(slice(3, 5), second)
        assert biases.note(slice(6, 8), -0.5)
        with torch.profiler.profile() as seen:
            biases.write(buffer)
        assert buffer.tolist() == [1, 2, 0, 6, 6, 0, -0.5, -0.5]
    names = [event.name for event in seen.events()]
    assert (names.count("aten::cat"), names.count("aten::index_copy_")) == (1, 1)


def test_a_bias_that_was_changed_is_written_anew_and_one_changed_before_it_is_written_is_missing():
    biases, buffer, bias = FixedBiases(), torch.zeros(2), torch.tensor([1.0])
    biases.note(slice(0, 1), bias)
    biases.write(buffer)
    bias.fill_(3.0)
    biases.note(slice(0, 1), bias)
    biases.write(buffer)
    assert buffer.tolist() == [3, 0]
    buffer.zero_()
    bias.fill_(4.0)
    biases.note(slice(0, 1), bias)
    bias.fill_(9.0)
    biases.write(buffer)
    assert buffer.tolist() == [0, 0]


def test_a_bias_that_was_changed_through_its_data_is_read_anew():
    biases, buffer, bias = FixedBiases(), torch.zeros(2), torch.tensor([1.0, 1.0])
    for value in (1.0, 3.0):
        bias.data.fill_(value)
        biases.note(slice(0, 2), bias)
        biases.write(buffer)
        assert buffer.tolist() == [value, value]


def test_a_bias_that_learns_is_not_kept():
    assert not FixedBiases().note(slice(0, 1), torch.ones(1, requires_grad=True))
