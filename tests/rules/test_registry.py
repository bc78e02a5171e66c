import re

import pytest

from stabmon.errors import ConfigError
from stabmon.records import Evidence, Severity
from stabmon.rules import RuleDocument, catalogue, document, find, markdown_table, registry

SECTIONS = "\n".join(f"{section}: words." for section in registry.SECTIONS)


def register(code="ATT900", name="a-name", doc=f"Flag it.\n\n{SECTIONS}\n"):
    def check(run, limits):
        return ()

    check.__doc__ = doc
    return registry.rule(code, name, severity=Severity.INFO, evidence=Evidence.MEASURED)(check)


@pytest.fixture(autouse=True)
def _own_copy():
    with registry.only(*catalogue()):
        yield


def test_the_first_rules_are_there_and_all_are_in_order():
    codes = [rule.code for rule in catalogue()]
    first = {"NUM001", "ATT001", "ATT002", "ATT003", "ATT004", "RES001", "GRD001", "LOS001", "CFG001"}
    assert first <= set(codes)
    assert codes == sorted(codes)


@pytest.mark.parametrize("code", ["ATT1", "att001", "XYZ001", "ATT0001"])
def test_a_malformed_code_is_refused(code):
    with pytest.raises(ValueError, match="three letters"):
        register(code=code)


def test_a_taken_code_or_name_is_refused():
    with pytest.raises(ValueError, match="ATT002 is taken by 'starved-rows'"):
        register(code="ATT002")
    with pytest.raises(ValueError, match="'starved-rows' is taken"):
        register(name="starved-rows")
    with pytest.raises(ValueError, match="kebab"):
        register(name="Starved_Rows")


@pytest.mark.parametrize("section", registry.SECTIONS)
def test_a_docstring_without_a_section_is_refused(section):
    with pytest.raises(ValueError, match=f"ATT900 lacks {section}"):
        register(doc=re.sub(f"{section}:.*", "", f"Flag it.\n\n{SECTIONS}\n"))


def test_a_docstring_that_names_an_unknown_limit_is_refused():
    with pytest.raises(ValueError, match="names limits that att does not have: no_such"):
        register(doc=f"Flag it.\n\n{SECTIONS} ``limits.no_such``\n")


def test_a_users_own_rule_joins_the_catalogue():
    register()
    assert find("ATT900").title == "Flag it."
    assert "ATT900" in {rule.code for rule in catalogue()}


def test_a_rule_document_holds_every_section_and_travels_as_json():
    for rule in catalogue():
        text = document(rule.code)
        assert min(map(len, (text.checks, text.matters, text.fix, text.wrong, text.references))) > 20
        assert RuleDocument.model_validate_json(text.model_dump_json()) == text
        assert "\n" not in text.checks


def test_a_rule_is_found_by_code_in_any_case_or_by_name():
    assert document("att002") == document("starved-rows") == document("ATT002")
    assert [limit.name for limit in document("ATT002").limits] == [
        "att.row_mass_min",
        "att.starved_heads_min",
        "att.first_steps",
        "att.confirmations",
        "att.unmasked_row_mass_max",
        "att.starved_samples",
        "att.dead_branch_ratio_max",
        "att.recovered_row_mass_min",
        "att.learnt_share_max",
    ]


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown rule 'ATT02'; did you mean 'ATT002'.*stabmon rules"):
        document("ATT02")
    with pytest.raises(ConfigError, match="expected one of ATT001"):
        document("?")


def test_the_table_has_one_line_a_rule():
    lines = markdown_table().splitlines()
    assert len(lines) == len(catalogue()) + 2
    assert len({line.count("|") for line in lines}) == 1


def test_symptoms_name_rules_that_exist():
    codes = {rule.code for rule in catalogue()}
    assert {cause for rule in catalogue() for cause in rule.symptom_of} <= codes
