"""A user's own rules from a file, and limits of single layers."""

import pytest

from stabmon.errors import ConfigError
from stabmon.rules import Limits, catalogue, load, registry, resolve
from stabmon.rules.limits import read, set_

SECTIONS = "\n    ".join(f"{section}: words." for section in registry.SECTIONS)
FILE = f'''
from stabmon.records import Evidence, Severity
from stabmon.rules import Observation, Explanation, rule

@rule("CODE", "NAME", severity=Severity.INFO, evidence=Evidence.MEASURED)
def check(run, limits):
    """Flag it.

    {SECTIONS}
    """
    for hit in run.series("loss").above(limits.los.deviations_max):
        yield Observation(hit, lambda: Explanation("high", "it is", run.cells(None, "loss")))
'''


@pytest.fixture
def file(tmp_path):
    def write(code="USR001", name="high-loss", text=FILE):
        path = tmp_path / f"{code}.py"
        path.write_text(text.replace("CODE", code).replace("NAME", name))
        return path

    return write


def test_a_user_rule_is_evaluated_where_it_is_passed_and_gets_all_limits(file, written):
    (own,) = load(file())
    assert "USR001" not in {rule.code for rule in catalogue()}
    assert catalogue([own])[-1] is own
    run = written({"steps": 2, "series": {"loss": 7.0}})
    assert [finding.code for finding in run.findings(rules=[own])] == ["USR001"]
    assert run.findings(rules=[own], ignore=["high-loss"]) == run.findings() == ()
    assert run.findings(rules=[own], limits=Limits.from_mapping({"los.deviations_max": 8})) == ()


def test_files_and_rules_may_be_mixed(file):
    (first,) = load(file())
    assert [rule.code for rule in resolve([first, file("USR002", "other")])] == ["USR001", "USR002"]
    for path in (file(), str(file())):
        assert [rule.code for rule in resolve(path)] == ["USR001"]


@pytest.mark.parametrize(
    ("code", "name", "text", "message"),
    [
        ("ATT001", "mine", FILE, r"ATT001\.py, line 5: ValueError: ATT001 is taken"),
        ("USR1", "mine", FILE, "three letters of ATT, .*USR"),
        ("USR001", "mine", "x = 1", "registers no rule; decorate"),
        ("USR001", "mine", "def broken(:", r"USR001\.py, line 1: SyntaxError"),
        ("USR001", "mine", "x = 1\ny = 1 / 0", r"USR001\.py, line 2: ZeroDivisionError"),
    ],
    ids=["taken", "code", "empty", "syntax", "error"],
)
def test_a_wrong_file_is_refused_with_its_line(code, name, text, message, file):
    with pytest.raises(ConfigError, match=message):
        load(file(code, name, text))


def test_two_own_rules_of_one_code_are_refused(file, written):
    with pytest.raises(ConfigError, match="USR001 is taken"):
        written({"series": {"loss": 1.0}}).findings(rules=[*load(file()), *load(file())])


FACTS = {"layers": 3, "heads": 2, "max_length": 1024, "is_causal": True, "bias": -6.931}


@pytest.mark.parametrize(
    "mapping",
    [
        {"layers.1/att.row_mass_max": 6},
        {"layers.1/att": {"row_mass_max": "6"}},
        {"layers": {"*.1": {"att.row_mass_max": 6}}},
        {"layers": {"*": {"att": {"row_mass_max": 6}}, "layers.[02]": {"att.row_mass_max": 10}}},
    ],
    ids=["dotted", "family", "nested", "last-wins"],
)
def test_limits_may_hold_for_some_layers_only(mapping, written):
    limits = Limits.from_mapping(mapping)
    run = written({"model": FACTS, "series": {"row_mass": 8}})
    assert [(finding.layer, finding.limit) for finding in run.findings(limits=limits)] == [("layers.1", 6)]
    assert Limits.from_mapping(limits.differences) == limits


def test_limits_are_set_by_assignments_one_after_another():
    limits = set_(Limits(), "att.row_mass_max=6", "layers.0/att.row_mass_max = 7", "ignore=ATT001,GRD001")
    assert (limits.att.row_mass_max, limits.of_layer("layers.0").att.row_mass_max) == (6, 7)
    assert limits.ignore == ("ATT001", "GRD001")
    assert limits.of_layer("layers.1") == limits.of_layer("")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must hold names and numbers, got list"),
        ("att: {row_mas_max: 1}", "limits.yaml: unknown limit 'att.row_mas_max'; did you mean 'att.row_mass_max'"),
        ("layers: {layers.0: 3}", "'layers.0' must hold names and numbers, got 3"),
        ("layers: {layers.0: {att.row_mass_max: -3}}", "att.row_mass_max must be a positive number, got -3"),
        ("att: {confirmations: 1.5}", "att.confirmations must be a positive whole number, got 1.5"),
        ("ignore: 3", "ignore must hold codes of rules, such as"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_wrong_file_of_limits_is_refused_in_words(text, message, tmp_path):
    (tmp_path / "limits.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "limits.yaml")


def test_an_empty_file_of_limits_holds_the_defaults(tmp_path):
    (tmp_path / "limits.yaml").write_text("# nothing\n")
    assert read(tmp_path / "limits.yaml") == Limits()
