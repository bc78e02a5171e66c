import sys

import pytest
import torch

from stabmon.config import ModelConfig, RunConfig, TrainingConfig
from stabmon.errors import ConfigError
from stabmon.workloads import digits, vision


def config(**options: object) -> RunConfig:
    return RunConfig(
        name="tiny",
        workload="vision",
        model=ModelConfig(**{"layers": 2, "width": 16, "heads": 2, "context": 16, "position": "learned", **options}),
        training=TrainingConfig(steps=2, batch=3, learning_rate=1e-2),
    )


def model(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return vision.build(config(**options).model)


def test_the_digits_are_real_images_of_ten_classes_and_validation_is_disjoint() -> None:
    train, valid = digits.scanned_digits()
    assert train.pixels.shape == (1438, 8, 8)
    assert len(valid.labels) == 359
    assert set(train.labels.tolist()) == set(valid.labels.tolist()) == set(range(10))
    whole = torch.cat((train.pixels, valid.pixels))
    assert (whole.mean().item(), whole.std().item()) == pytest.approx((0.0, 1.0), abs=1e-5)
    nearest = torch.cdist(valid.pixels.flatten(1), train.pixels.flatten(1)).argmin(1)
    assert (train.labels[nearest] == valid.labels).double().mean() > 0.9


def test_patches_are_two_by_two_pixels_in_reading_order() -> None:
    image = torch.arange(16.0).reshape(1, 4, 4)
    assert vision.patches(image).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


@pytest.mark.parametrize(("context", "side"), [(16, 8), (64, 16), (100, 20)])
def test_the_context_decides_how_finely_an_image_is_cut(context: int, side: int) -> None:
    batch = next(vision.batches(config(context=context)))
    assert batch.inputs[0].shape == (3, side, side)
    assert batch.targets[0].shape == (3,)


def test_an_image_of_the_scanned_size_is_the_scanned_one() -> None:
    (images,), (labels,) = next(vision.batches(config()))
    train = digits.scanned_digits().train
    found = (train.pixels == images[0]).all((1, 2)).nonzero()[0, 0]
    assert train.labels[found] == labels[0]


@pytest.mark.parametrize("position", ["learned", "rope", "alibi", "none"])
@pytest.mark.parametrize(("pooling", "keys"), [("mean", 16), ("token", 17)])
def test_every_model_sees_all_patches(pooling: str, keys: int, position: str) -> None:
    net, images = model(pooling=pooling, position=position), torch.randn(1, 8, 8, requires_grad=True)
    net(images)[0, 0].backward()
    assert (images.grad != 0).all()
    assert net.layers[0].attention.max_length == keys


def test_learned_positions_are_resampled_for_a_larger_image() -> None:
    net = model()
    assert net(torch.randn(2, 16, 16)).shape == (2, 10)
    row, column = torch.arange(4.0), torch.arange(4.0)
    ramp = (row[:, None] + 10 * column).flatten()[:, None]
    finer = vision.resampled(ramp, 64).reshape(8, 8)
    assert vision.resampled(ramp, 16) is ramp
    assert finer[3:5, 3:5].mean().item() == pytest.approx(16.5, abs=1e-4)
    assert (finer[2:6, 2:6].diff(dim=1) > 0).all()


def test_validation_is_every_unseen_image_once() -> None:
    parts = list(vision.validation(config(), 64))
    assert sum(len(part.targets[0]) for part in parts) == 359
    assert {part.inputs[0].shape[1:] for part in parts} == {(16, 16)}


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits.scanned_digits.cache_clear()
    with pytest.raises(ConfigError, match=r"cannot be imported .*; pip install 'stabmon\[workloads\]'"):
        next(vision.batches(config()))
