"""Only the layouts name a family's classes, modules, prefixes and inputs; all other code asks them."""

import ast
import re

import pytest
from project import ROOT

LAYOUTS = ROOT / "compressor" / "models" / "encoders"
# Programs of their own, which are handed to users and import nothing of the project.
STANDALONE = (
    ROOT / "exporters" / "triton" / "client.py",
    ROOT / "compressor" / "models" / "portable" / "check_host.py",
)
SOURCES = [
    path
    for path in (*(ROOT / "compressor").rglob("*.py"), *(ROOT / "exporters").rglob("*.py"), ROOT / "cli.py")
    if not path.is_relative_to(LAYOUTS) and path not in STANDALONE
]
# Ids of models on the hub, such as bert-base-uncased, and names of attacks are no names of parts.
FAMILY_NAME = re.compile(
    r"(?<![\w-])bert(?![\w-])|(?<![a-z])Bert[A-Z]|attention\.self|encoder\.layer|intermediate|token_type_ids"
    r"|roberta|camembert|electra|distilbert|mpnet|out_proj|q_lin|ffn"
    r"|modernbert|deberta|Wqkv|(?<!\w)Wi(?!\w)|query_proj|rel_embeddings|relative_pos"
)


def names_in(source):
    """Identifiers, dotted names and strings of a module, each with its line; no comments, no docstrings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and id(node) not in docstrings:
                yield line, node.value
        elif isinstance(node, ast.Attribute):
            yield line, ast.unparse(node)
        else:
            for field in ("id", "arg", "name", "module", "asname"):
                value = getattr(node, field, None)
                if isinstance(value, str):
                    yield line, value


def family_names(source):
    return [f"line {line}: {name}" for line, name in names_in(source) if FAMILY_NAME.search(name)]


def test_no_other_module_names_a_part_of_a_family():
    found = {
        str(path.relative_to(ROOT)): names
        for path in SOURCES
        if (names := family_names(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "model.bert",
        "x = 'bert'",
        "x = f'bert.encoder.layer.{index}.'",
        "x = 'model.encoder.layer.0'",
        "from transformers import BertModel",
        "def load(model: BertForSequenceClassification): ...",
        "layer.attention.self.query",
        "layer.intermediate.dense",
        "config.intermediate_size = 3",
        "model(token_type_ids=ids)",
        "def forward(token_type_ids): ...",
        "batch['token_type_ids']",
    ],
)
def test_a_name_of_a_part_is_found(source):
    assert family_names(source)


@pytest.mark.parametrize(
    "source",
    [
        "'bert-base-uncased'",
        "'bertattack'",
        "'BERTAttackLi2020'",
        "'is no BERT sentence encoder'",
        "def f():\n    'Has the names of bert.encoder.layer.'\n",
        "x = 1  # as in BertLayer",
        "'pad_token_type_id'",
    ],
)
def test_other_names_are_let_pass(source):
    assert family_names(source) == []
