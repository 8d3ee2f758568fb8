import json
from pathlib import Path

import compressor.validation.schema as report_module
from compressor.validation.schema import Report


def test_the_schema_in_the_repository_is_that_of_the_models():
    schema = Path(report_module.__file__).with_name("report.schema.json")
    assert json.loads(schema.read_text()) == Report.model_json_schema()
