import io
import math
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from stabmon.findings import Finding
from stabmon.fixes.change import Safety
from stabmon.fixes.record import Fix
from stabmon.records import Evidence, ModelMap, RunInfo, RunState, Severity
from stabmon.series import MISSING, Layout, Logged
from stabmon.sinks import TensorBoardSink, events, heatmap, tensorboard

INFO = RunInfo(name="run", created=datetime(2026, 1, 1, tzinfo=UTC), model=ModelMap(attentions=(), parameters=7))
PER_HEAD = ("attention_norm", "row_mass", "logit_max", "saturated_fraction")
PER_LAYER = ("branch_ratio", "block_growth", "gradient_norm")


def layout_of(layers, heads):
    names = [f"layers.{number}" for number in range(layers)]
    wanted = [("loss", None, 1), ("total_gradient_norm", None, 1), ("learning_rate", None, 1)]
    wanted += [(metric, name, heads) for name in names for metric in PER_HEAD]
    return Layout.of(wanted + [(metric, name, 1) for name in names for metric in PER_LAYER])


def read_back(folder):
    events_of_run = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0, "images": 0})
    events_of_run.Reload()
    return events_of_run


def write(folder, rows, layout, **options):
    sink = TensorBoardSink(folder, **options)
    sink.start(INFO, layout)
    for step, row in enumerate(rows):
        sink.sample(step, 100.0 + step, row)
    return sink


def test_nan_infinities_and_gaps_reach_tensorboard(tmp_path):
    layout = Layout.of([("loss", None, 1), ("branch_ratio", "layers.3", 1)])
    rows = np.array([[1, 2], [np.nan, MISSING], [np.inf, -np.inf]], dtype=np.float32)
    write(tmp_path, rows, layout).close(RunState.FINISHED)
    back = read_back(tmp_path)
    assert [point.step for point in back.Scalars("loss")] == [0, 1, 2]
    assert math.isnan(back.Scalars("loss")[1].value)
    assert back.Scalars("loss")[2].value == math.inf
    assert [(point.step, point.value) for point in back.Scalars("branch_ratio/layers.03")] == [(0, 2.0), (2, -math.inf)]


@pytest.mark.parametrize(("layers", "heads"), [(2, 2), (12, 12), (126, 16)], ids=["L2-H2", "L12-H12", "L126-H16"])
def test_there_are_about_a_hundred_tags_however_deep_the_model(layers, heads, tmp_path):
    layout = layout_of(layers, heads)
    sink = write(tmp_path, np.ones((1, layout.width), np.float32), layout)
    sink.close(RunState.FINISHED)
    tags = read_back(tmp_path).Tags()
    assert len(tags["scalars"]) + len(tags["images"]) + len(tags["tensors"]) <= 105
    curves = sorted(tag for tag in tags["scalars"] if tag.startswith("row_mass/"))
    last = str(layers - 1).zfill(max(2, len(str(layers - 1))))
    assert curves[0].endswith(".000" if layers > 100 else ".00")
    assert curves[-1] == f"row_mass/layers.{last}"
    assert len(curves) == min(layers, 12)


def test_a_layer_is_one_number_made_of_its_heads(tmp_path):
    layout = Layout.of([("attention_norm", "layers.0", 2), ("logit_max", "layers.0", 2)])
    write(tmp_path, np.array([[3, 4, 1, 7]], np.float32), layout).close(RunState.FINISHED)
    back = read_back(tmp_path)
    assert back.Scalars("attention_norm/layers.00")[0].value == 5.0
    assert back.Scalars("logit_max/layers.00")[0].value == 7.0


def test_heatmaps_come_every_k_samples_and_at_the_end(tmp_path):
    layout = layout_of(3, 2)
    write(tmp_path, np.ones((25, layout.width), np.float32), layout, images_every=10).close(RunState.FINISHED)
    back = read_back(tmp_path)
    images = back.Tensors("heatmap/row_mass.layers")
    assert "magenta is NaN" in back.SummaryMetadata("heatmap/row_mass.layers").summary_description
    assert [image.step for image in images] == [9, 19, 24]
    with Image.open(io.BytesIO(images[-1].tensor_proto.string_val[2])) as picture:
        assert picture.size == (25 * 16, 3 * 16)


def test_the_colours_of_nan_and_of_missing_values_are_not_in_the_map():
    values = np.array([[1e-9, 0.01, 1.0, 100.0, 1e9, np.nan, np.inf, MISSING, -1.0]], dtype=np.float32)
    encoded, height, width = heatmap.png(heatmap.indices(values, 1.0), 4, 2)
    with Image.open(io.BytesIO(encoded)) as picture:
        assert (picture.height, picture.width) == (height, width) == (2, 36)
        pixels = np.asarray(picture.convert("RGB"))[0, ::4]
    shades = heatmap.PALETTE[:-2].tolist()
    assert pixels[[0, 1, 3, 4, 8]].tolist() == [shades[0], shades[0], shades[-1], shades[-1], shades[0]]
    assert pixels[2].tolist() == shades[100]
    assert pixels[5].tolist() == pixels[6].tolist() == [255, 0, 255]
    assert pixels[7].tolist() == [128, 128, 128]
    assert not any(colour in shades for colour in ([255, 0, 255], [128, 128, 128]))


def test_a_finding_is_a_line_when_it_opens_and_all_are_one_table_at_the_end(tmp_path):
    fix = Fix(
        kind="bias", module="layers.0", value=-5.5, safety=Safety.ANY_TIME, why="w", code="model.bias.fill_(-5.5)"
    )
    found = Finding(
        code="ATT002",
        name="starved-rows",
        severity=Severity.WARNING,
        evidence=Evidence.MEASURED,
        layer="layers.0",
        head=1,
        metric="row_mass",
        value=0.01,
        limit=0.1,
        message="rows sum to 0.01 | not 1",
        cause="",
        opened=0,
        peak=0,
        last=0,
        fixes=(fix,),
    )
    layout = layout_of(1, 2)
    sink = write(tmp_path, np.ones((1, layout.width), np.float32), layout)
    sink.findings([found])
    sink.sample(1, 101.0, np.ones(layout.width, np.float32))
    sink.findings([found.model_copy(update={"cleared": 1})])
    sink.close(RunState.FINISHED)
    back = read_back(tmp_path)
    (opened,) = back.Tensors("finding opened")
    assert (opened.step, opened.tensor_proto.string_val[0].decode()) == (0, str(found))
    (table,) = [event.tensor_proto.string_val[0].decode() for event in back.Tensors("findings")]
    assert table.count("ATT002") == 1
    assert "| layers.0 head 1 | step 0 |" in table
    assert f"rows sum to 0.01 \\| not 1 | {fix}: {fix.why}. |" in table


def test_a_run_three_hundred_times_too_large_does_not_look_like_a_healthy_one(tmp_path):
    layout = layout_of(2, 2)
    shades = {}
    for name, size in (("healthy", 1.0), ("large", 300.0)):
        write(tmp_path / name, np.full((9, layout.width), size, np.float32), layout).close(RunState.FINISHED)
        shades[name] = pixels(tmp_path / name, "heatmap/attention_norm.layers")[0, 0]
    assert np.abs(shades["large"].astype(int) - shades["healthy"]).max() > 50


def test_the_first_layer_is_at_the_bottom_as_on_the_page(tmp_path):
    layout = layout_of(2, 2)
    rows = np.ones((9, layout.width), np.float32)
    first = next(column for column in layout.of_metric("row_mass") if column.layer == "layers.0")
    rows[:, first.start : first.start + first.size] = np.nan
    write(tmp_path, rows, layout).close(RunState.FINISHED)
    for view in ("layers", "heads"):
        drawn = pixels(tmp_path, f"heatmap/row_mass.{view}")
        assert drawn[-1, 0].tolist() == [255, 0, 255]
        assert drawn[0, 0].tolist() != [255, 0, 255]
    assert (
        "first layer at the bottom"
        in read_back(tmp_path).SummaryMetadata("heatmap/row_mass.layers").summary_description
    )


def pixels(folder, tag):
    """Return the latest image of ``tag`` as [height, width, 3]."""
    with Image.open(io.BytesIO(read_back(folder).Tensors(tag)[-1].tensor_proto.string_val[2])) as picture:
        return np.asarray(picture.convert("RGB"))


def test_numbers_of_names_of_the_user_have_curves_and_a_chart(tmp_path):
    layout = Layout.of([("loss", None, 1), ("accuracy", None, 1), ("branch_ratio", "layers.0", 1)])
    write(tmp_path, np.array([[3, 0.25, 1], [2, 0.5, 1]], np.float32), layout).close(RunState.FINISHED)
    back = read_back(tmp_path)
    assert [point.value for point in back.Scalars("accuracy")] == [0.25, 0.5]
    page = layout_pb2.Layout.FromString(back.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert "accuracy" in [chart.title for chart in page.category[0].chart]


def test_the_configuration_is_on_the_page_of_hyperparameters(tmp_path):
    sink = TensorBoardSink(tmp_path)
    config = {"model": {"heads": 4, "bias": -5.5}, "name": "lm", "causal": True, "schedule": ["a", 1], "none": None}
    sink.start(INFO.model_copy(update={"config": config}), Layout.of([("loss", None, 1)]))
    sink.sample(0, 100.0, np.ones(1, np.float32))
    sink.close(RunState.FINISHED)
    content = read_back(tmp_path).SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    given = HParamsPluginData.FromString(content).session_start_info.hparams
    assert given["model.heads"].number_value == 4
    assert given["model.bias"].number_value == -5.5
    assert given["causal"].bool_value is True
    assert given["schedule"].string_value == "['a', 1]"


def test_the_custom_scalars_page_has_a_chart_a_metric(tmp_path):
    layout = layout_of(2, 2)
    write(tmp_path, np.ones((3, layout.width), np.float32), layout).close(RunState.FINISHED)
    event = read_back(tmp_path).Tensors("custom_scalars__config__")[0]
    page = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in page.category] == ["run", "layers"]
    assert page.category[1].chart[0].multiline.tag == ["^attention_norm/"]


def test_a_run_that_goes_back_replaces_the_points_it_repeats(tmp_path):
    layout = Layout.of([("loss", None, 1)])
    sink = write(tmp_path, np.array([[0], [1], [2]], np.float32), layout)
    sink.sample(1, 200.0, np.array([10], np.float32))
    sink.close(RunState.FINISHED)
    points = read_back(tmp_path).Scalars("loss")
    assert [(point.step, point.value) for point in points] == [(0, 0.0), (1, 10.0)]


def test_a_partial_record_is_truncated_so_that_readers_continue(tmp_path):
    file = events.EventFile(tmp_path)
    file.add(0, 1.0, [events.scalar("loss", 1.0)])
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.path.stat().st_size + 7, hard))
    try:
        with pytest.raises(OSError, match="only a part"):
            file.add(1, 2.0, [events.scalar("loss", 2.0)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.add(2, 3.0, [events.scalar("loss", 3.0)])
    file.close()
    assert [point.step for point in read_back(tmp_path).Scalars("loss")] == [0, 2]


def test_sinks_load_neither_torch_nor_tensorflow():
    program = (
        "import sys, stabmon.sinks, stabmon.store; sys.exit('torch' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_points_are_half_a_second_apart_but_the_last_and_those_that_are_not_finite(tmp_path):
    layout = Layout.of([("loss", None, 1)])
    sink = TensorBoardSink(tmp_path)
    sink.start(INFO, layout)
    for step, loss in enumerate([4.0, 3.0, np.nan, 2.0, 1.0]):
        sink.sample(step, 100.0 + 0.1 * step, np.array([loss], np.float32))
    sink.close(RunState.FINISHED)
    assert [point.step for point in read_back(tmp_path).Scalars("loss")] == [0, 2, 4]


def found_at(step, code="LOS001", **changes):
    text = {"name": "loss-spike", "message": "m" * 200, "cause": "c", "metric": "loss", "layer": None, "head": None}
    numbers = {"value": 3.0, "limit": 2.0, "opened": step, "peak": step, "last": step}
    kinds = {"severity": Severity.INFO, "evidence": Evidence.MEASURED}
    return Finding(code=code, **text | numbers | kinds | changes)


def test_points_become_sparse_as_a_run_grows_but_not_where_a_finding_changes(tmp_path):
    layout = Layout.of([("loss", None, 1)])
    sink = TensorBoardSink(tmp_path)
    sink.start(INFO, layout)
    for step in range(3000):
        sink.sample(step, float(step), np.array([np.nan if step == 2711 else step], np.float32))
        if step in (2501, 2503):
            sink.findings([found_at(step)])
        if step == 2509:  # the rules are six samples behind
            sink.findings([found_at(2501, cleared=2505), found_at(2503, severity=Severity.ERROR, last=2507)])
    sink.close(RunState.FINISHED)
    steps = [point.step for point in read_back(tmp_path).Scalars("loss")]
    assert steps[:500] == list(range(500))
    assert {2501, 2503, 2505, 2507, 2711, 2999} <= set(steps)
    assert len(steps) < 500 * (1 + math.log(6)) + 10


def test_of_a_finding_that_repeats_itself_the_steps_of_powers_of_two_are_written(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.start(INFO, Layout.of([("loss", None, 1)]))
    for step in range(2000):
        sink.sample(step, 0.0, np.array([1], np.float32))  # all at one time: no point is due
        if step >= 100 and step % 100 == 0:
            again = {} if step == 100 else {"times": step // 100, "reopened": step}
            sink.findings([found_at(100, last=step, **again)])
    sink.close(RunState.FINISHED)
    assert [point.step for point in read_back(tmp_path).Scalars("loss")] == [0, 100, 200, 400, 800, 1600, 1999]


@pytest.mark.slow
def test_forty_thousand_steps_with_three_thousand_changes_of_findings_take_a_few_megabytes(tmp_path):
    layout = layout_of(6, 4)
    sink = TensorBoardSink(tmp_path)
    sink.start(INFO, layout)
    rows = np.random.default_rng(0).lognormal(size=(64, layout.width)).astype(np.float32)
    sizes = {}
    for step in range(40_000):
        sink.sample(step, float(step), rows[step % 64])
        if step % 13 == 0:
            sink.findings([found_at(step, code=f"LOS{step % 997:03}")])
        if step + 1 in (10_000, 20_000, 40_000):
            sizes[step + 1] = sum(file.stat().st_size for file in tmp_path.iterdir())
    sink.close(RunState.FINISHED)
    print({steps: f"{size / 1e6:.1f} MB" for steps, size in sizes.items()})
    back = read_back(tmp_path)
    assert len(back.Tensors("findings")) == 1
    assert len(back.Tensors("finding opened")) == tensorboard.LINES
    assert all(event.tensor_proto.string_val[0].count(b"\n") < 60 for event in back.Tensors("findings"))
    assert len(back.Tensors("heatmap/row_mass.layers")) < 40


@pytest.mark.parametrize("back", [0.1, 3600.0])
def test_a_clock_that_is_set_back_keeps_every_later_point(tmp_path, back):
    layout = Layout.of([("loss", None, 1), ("accuracy", None, 1)])
    sink = TensorBoardSink(tmp_path)
    sink.start(INFO, layout)
    clock = [1000.0 + step if step < 5 else 1000.0 - back + step for step in range(10)]
    for step, time in enumerate(clock):
        sink.sample(2 * step, time, np.array([step, MISSING], np.float32))
        sink.logged([Logged(2 * step + 1, time, "accuracy", float(step))])
    sink.close(RunState.FINISHED)
    back_read = read_back(tmp_path)
    assert [point.step for point in back_read.Scalars("loss")] == list(range(0, 20, 2))
    assert [point.step for point in back_read.Scalars("accuracy")] == list(range(1, 20, 2))
