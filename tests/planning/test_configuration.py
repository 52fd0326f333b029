import json
import logging

import pytest

from secateur.errors import PlanError
from secateur.planning.configuration import read_configuration
from secateur.planning.rules import DEFAULT_TYPES, rules_of

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


def test_every_field_of_nni_3_is_read():
    one, two, three = rules_of(
        [
            {
                "op_types": ["Conv2d"],
                "op_names_re": [r"features\.[0-3]"],
                "exclude_op_names": ["features.0"],
                "exclude_op_names_re": ["head"],
                "exclude_op_types": ["Linear"],
                "sparse_ratio": 0.5,
                "max_sparse_ratio": 0.9,
                "min_sparse_ratio": 0.1,
                "global_group_id": 3,
                "dependency_group_id": "a",
                "granularity": "out_channel",
                "apply_method": "mul",
                "sparse_threshold": None,
                "internal_metric_block": None,
            },
            {
                "op_names": ["fc1"],
                "target_names": ["weight", "bias"],
                "target_settings": {
                    "weight": {"sparse_ratio": 0.8, "granularity": [1, -1], "max_sparse_ratio": None},
                    "bias": {"align": {"target_name": "weight", "dims": [0]}},
                },
            },
            {"op_partial_names": ["conv"], "total_sparsity": 0.3},
        ]
    )
    assert (one.sparsity, one.max_sparsity, one.min_sparsity, one.pool) == (0.5, 0.9, 0.1, "3")
    assert (one.patterns, one.without_names) == ((r"features\.[0-3]",), ("features.0",))
    assert (one.without_patterns, one.without_types) == (("head",), ("Linear",))
    assert (two.sparsity, two.names, two.max_sparsity) == (0.8, ("fc1",), None)
    assert (three.total, three.partial_names) == (0.3, ("conv",))


def test_why_a_dependency_group_is_not_needed_is_said(caplog):
    with caplog.at_level(logging.INFO, logger="secateur"):
        rules_of([{"sparse_ratio": 0.5, "dependency_group_id": "stream"}])
    assert "which layers go together is found by tracing" in caplog.text


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
        ({"sparse_ration": 0.5}, "unknown field 'sparse_ration'. Did you mean sparse_ratio"),
        ({"sparse_ratio": 1}, "has sparse_ratio: 1, which is no share"),
        ({"sparse_ratio": 0.5, "sparsity": 0.5}, "has both sparse_ratio and sparsity, which are the same"),
        ({"sparse_ratio": 0.5, "min_sparse_ratio": 0.6}, "has min_sparse_ratio: 0.6 and asks for 0.5 at most"),
        ({"sparse_ratio": 0.5, "max_sparse_ratio": 0.2, "min_sparse_ratio": 0.3}, "asks for 0.2 at most"),
        ({"min_sparse_ratio": 0.3}, "min_sparse_ratio without a sparse_ratio"),
        ({"global_group_id": 1}, "global_group_id without a sparse_ratio"),
        ({"global_group_id": 1, "total_sparsity": 0.5}, "global_group_id without a sparse_ratio"),
        (
            {"sparse_ratio": 0.5, "granularity": "in_channel"},
            "has granularity: 'in_channel', and whole output channels",
        ),
        ({"sparse_ratio": 0.5, "granularity": [4, 4]}, "has granularity: .4, 4., and whole output channels"),
        ({"sparse_ratio": 0.5, "apply_method": "add"}, "has apply_method: 'add'"),
        ({"sparse_ratio": 0.5, "internal_metric_block": 4}, "has internal_metric_block"),
        ({"sparse_threshold": 0.1}, "Give sparse_ratio instead"),
        ({"sparse_ratio": 0.5, "target_names": ["_input_"]}, "is about the target _input_"),
        ({"sparse_ratio": 0.5, "target_names": ["bias"]}, "is about the target bias"),
        ({"target_settings": {"_output_": {"sparse_ratio": 0.5}}}, "is about the target _output_"),
        ({"target_settings": {"weight": 0.5}}, "a dict of dicts is wanted"),
        (
            {"target_settings": {"weight": {"sparse_ration": 1}}},
            "target_settings, has an unknown field 'sparse_ration'",
        ),
        ({"sparse_ratio": 0.5, "op_names_re": ["a["]}, "is no regular expression: unterminated"),
    ],
)
def test_entries_that_make_no_sense_are_refused(entry, message):
    with pytest.raises(PlanError, match=message):
        rules_of([entry])


def test_a_pool_has_one_sparsity():
    entries = [{"sparse_ratio": share, "global_group_id": "a"} for share in (0.5, 0.6)]
    with pytest.raises(PlanError, match="entry 1 and entry 2, gives two sparsities to global_group_id: a"):
        rules_of(entries)
