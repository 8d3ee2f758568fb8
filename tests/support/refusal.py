"""How a data file is refused."""

import pytest

from compressor.errors import UserError


def refused(load, content, name, *parts, **options):
    """Check that a file of that name and content is refused in one line that has the name and all parts."""
    with pytest.raises(UserError) as caught:
        load(content, name, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in (name, *parts):
        assert part in message
