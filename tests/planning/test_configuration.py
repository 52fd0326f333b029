import json

import pytest

from secateur.errors import PlanError
from secateur.planning.configuration import DEFAULT_TYPES, read_configuration, rules_of

ARTICLE = [{"sparsity": 0.8, "op_types": ["Conv2d"]}]


def test_the_articles_list_works_as_typed():
    assert read_configuration(ARTICLE) == ARTICLE
    assert read_configuration(str(ARTICLE)) == ARTICLE
    (rule,) = rules_of(ARTICLE)
    assert (rule.sparsity, rule.types, rule.names, rule.exclude) == (0.8, ("Conv2d",), None, False)


def test_the_same_from_yaml_and_json(tmp_path):
    yaml_file, json_file = tmp_path / "c.yaml", tmp_path / "c.json"
    yaml_file.write_text("# the article's\n- sparsity: 0.8\n  op_types:\n  - Conv2d\n")
    json_file.write_text(json.dumps(ARTICLE))
    assert read_configuration(yaml_file) == read_configuration(str(json_file)) == ARTICLE
    assert read_configuration(yaml_file.read_text()) == ARTICLE


def test_every_field_of_nni_is_read():
    one, two, three = rules_of(
        [
            {"sparsity_per_layer": 0.5, "op_names": ["conv1"], "op_partial_names": ["layer"]},
            {"total_sparsity": 0.4, "max_sparsity_per_layer": 1, "op_types": ["default"]},
            {"exclude": True, "op_names": "fc"},
        ]
    )
    assert (one.sparsity, one.names, one.partial_names) == (0.5, ("conv1",), ("layer",))
    assert (two.total, two.max_sparsity, two.types) == (0.4, 1.0, DEFAULT_TYPES)
    assert (three.exclude, three.names) == (True, ("fc",))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sparsity": 0.8}, "is one dict, and a list of dicts is wanted. Put it in brackets"),
        ([], "a list of dicts is wanted"),
        (7, "is 7, and a list of dicts"),
        (["sparsity"], "entry 1, is 'sparsity', and a dict is wanted"),
        ("[{", "is broken"),
        ("- sparsity: [1\n", "is broken"),
        ("no_such_file.yaml", "no_such_file.yaml cannot be read: No such file"),
        ("[{'sparsity': !!python/object/apply:os.system ['true']}]", "is broken: could not determine a constructor"),
    ],
)
def test_what_is_no_configuration_is_refused(config, message):
    with pytest.raises(PlanError, match=message):
        read_configuration(config)


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("- sparsity: 0.8\n op_types: [Conv2d\n")
    with pytest.raises(PlanError, match=r"broken\.yaml is broken: .* at line 2"):
        read_configuration(path)
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(PlanError, match=r"broken\.yaml cannot be read: it is no text"):
        read_configuration(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sparsty": 0.8}, "entry 1, has an unknown field 'sparsty'. Did you mean sparsity"),
        ({"sparsity": 1.0}, "has sparsity: 1.0, which is no share"),
        ({"sparsity": -0.1}, "is no share"),
        ({"sparsity": "high"}, "is no share"),
        ({"sparsity": True}, "is no share"),
        ({"total_sparsity": 1}, "has total_sparsity: 1, which is no share"),
        ({"sparsity": 0.5, "total_sparsity": 0.5}, "both sparsity .* and total_sparsity"),
        ({"sparsity": 0.5, "sparsity_per_layer": 0.5}, "which are the same"),
        ({"sparsity": 0.5, "exclude": True}, "excludes layers and gives them a sparsity"),
        ({"exclude": "yes"}, "has exclude: 'yes'"),
        ({"sparsity": 0.5, "op_types": []}, "a list of names is wanted"),
        ({"sparsity": 0.5, "op_names": [3]}, "a list of names is wanted"),
        ({3: 0.5}, "unknown field 3"),
    ],
)
def test_entries_that_make_no_sense_are_refused(entry, message):
    with pytest.raises(PlanError, match=message):
        rules_of([entry])
