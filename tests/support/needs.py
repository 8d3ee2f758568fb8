"""What tests need that one of the two environments does not have."""

from importlib.metadata import version

import pytest

# With transformers 4 it is part of the environment: there these tests fail without it.
NEEDS_OPTIMUM = pytest.mark.skipif(
    int(version("transformers").partition(".")[0]) >= 5,
    reason="optimum-onnx has no version for transformers 5; make test-transformers4 runs this",
)
