"""Names of modules: whose they are, how they sort, how they are padded."""

from stabmon.names import natural_key, own_name, padded


def test_what_wrappers_put_into_a_path_is_left_out():
    assert own_name("module._orig_mod.layers.0._checkpoint_wrapped_module.attention") == "layers.0.attention"
    assert own_name("modules.module_list.0") == "modules.module_list.0"


def test_layers_sort_in_natural_order():
    names = ["layers.10", "layers.2", "encoder.1", "layers.2.b", "layers.2.a"]
    assert sorted(names, key=natural_key) == ["encoder.1", "layers.2", "layers.2.a", "layers.2.b", "layers.10"]


def test_padded_names_sort_as_text():
    assert sorted(padded(f"layers.{number}") for number in (10, 2, 3)) == ["layers.02", "layers.03", "layers.10"]
