from pathlib import Path

import pytest

from stabmon.config import MATRIX
from stabmon.errors import ConfigError
from stabmon.evaluation import matrix

SHIPPED = Path(matrix.__file__).parent.parent / "configs" / MATRIX
SMALL = """
seeds: [0, 1]
bases:
  tiny: {cpu: true, config: {workload: language, model: {layers: 1, width: 8, heads: 2, context: 16},
                             training: {steps: 3, batch: 2, learning_rate: 1e-3}}}
  wide: {config: {workload: language, model: {layers: 1, width: 16, heads: 2, context: 16},
                  training: {steps: 3, batch: 2, learning_rate: 1e-3}}}
variants:
  - {name: length, kind: healthy, bases: [language]}
  - {name: zero, kind: b = 0, bases: [tiny], change: {model.bias: 0.0}}
"""


def load(folder: Path, text: str) -> matrix.Matrix:
    file = folder / "matrix.yaml"
    file.write_text(text)
    return matrix.load(file)


def test_a_workload_means_all_its_bases_and_each_configuration_has_every_seed(tmp_path: Path) -> None:
    runs = matrix.runs_of(load(tmp_path, SMALL))
    names = ["tiny.length.0", "tiny.length.1", "wide.length.0", "wide.length.1", "tiny.zero.0", "tiny.zero.1"]
    assert [run.name for run in runs] == names
    assert [run.config.training.seed for run in runs] == [0, 1] * 3
    assert (runs[-1].configuration, runs[-1].kind, runs[-1].config.model.bias) == ("tiny.zero", "b = 0", 0.0)


def test_the_cpu_s_subset_is_the_first_seed_of_its_bases(tmp_path: Path) -> None:
    runs = matrix.runs_of(load(tmp_path, SMALL), cpu_only=True)
    assert [run.name for run in runs] == ["tiny.length.0", "tiny.zero.0"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bases: [tiny]", "bases: [tinny]", "variant zero: no base or workload 'tinny'; known: tiny, wide"),
        ("model.bias: 0.0", "model.biass: 0.0", "unknown key 'model.biass'"),
        ("layers: 1, width: 8", "layers: 1, wdth: 8", "base tiny: unknown key 'model.wdth'"),
        ("seeds: [0, 1]", "sedes: [0, 1]", "unknown key 'sedes'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        matrix.runs_of(load(tmp_path, SMALL.replace(old, new)))


def test_halves_split_each_kind_by_configuration_and_by_names_alone() -> None:
    kinds = {f"a.{index}": "one" for index in range(6)} | {f"b.{index}": "two" for index in range(4)}
    halves = matrix.halves(kinds)
    assert sorted(halves[name] for name in kinds if kinds[name] == "one") == ["held-out"] * 3 + ["tuning"] * 3
    assert matrix.halves(dict(reversed(kinds.items()))) == halves
    without = {name: kind for name, kind in kinds.items() if name != "b.0"}
    assert all(matrix.halves(without)[name] == halves[name] for name in kinds if name[0] == "a")


def test_the_shipped_matrix_holds_the_documented_runs() -> None:
    shipped = matrix.load(SHIPPED)
    runs = matrix.runs_of(shipped)
    assert len(runs) >= 150
    assert len({run.name for run in runs}) == len(runs)
    assert len(matrix.runs_of(shipped, cpu_only=True)) == 30
    assert {run.config.workload for run in runs} == {"language", "vision", "speech"}
